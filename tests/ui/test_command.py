from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar

import pytest
from typer.testing import CliRunner

from tracelet.cli import make_app


def test_the_printed_address_opens_the_page_and_ctrl_c_ends_the_server(runs):
    command = [sys.executable, "-c", "from tracelet.cli import main; main()", "ui", str(runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", server.stdout.readline())
        assert found is not None
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with browser.open(found[0], timeout=30) as answer:
            assert ("token" in answer.url, b"<title>Tracelet</title>" in answer.read()) == (False, True)
        with browser.open(found[0].partition("?")[0] + "api/runs", timeout=30) as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    assert server.returncode == 128 + signal.SIGINT
    assert "Traceback" not in errors


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = CliRunner().invoke(make_app(), ["ui", "--port", str(other.getsockname()[1])])
    assert result.exit_code == 1
    assert "Take another one with --port" in result.output


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "plotly", "tsdownsample"])
def test_a_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(make_app(), ["ui"])
    assert result.exit_code == 1
    assert "tracelet[ui]" in result.output
