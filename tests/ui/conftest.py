from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.ui import demo
from tests.ui.browsing import Browser, serving
from tests.unit.cli.conftest import strict_json
from tracelet.ui.server import make_app

TOKEN = "token-of-the-tests"
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.all_runs(tmp_path_factory.mktemp("ui") / "runs")


@pytest.fixture(scope="session")
def growing(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser looks at: the same runs, to which tests add some."""
    return Path(shutil.copytree(runs, tmp_path_factory.mktemp("ui") / "growing"))


@pytest.fixture(scope="session")
def started(growing: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser, and a server that it has opened the page of."""
    with serving(growing) as address:
        browser = Browser(address, tmp_path_factory.mktemp("browser"))
        try:
            yield browser
        finally:
            browser.driver.quit()


@pytest.fixture
def stranger(runs: Path) -> TestClient:
    """A client that has no token."""
    return TestClient(make_app(runs, TOKEN), base_url="http://127.0.0.1:6070", follow_redirects=False)


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    assert stranger.get(f"/?token={TOKEN}").status_code == 303
    return stranger


@pytest.fixture
def ask(client: TestClient) -> Ask:
    """Asks the API, and gives the answer, which is strict JSON."""

    def get(what: str, /, code: int = 200, **query: Any) -> Any:
        answer = client.get(f"/api/{what}", params=query)
        assert (answer.status_code, answer.headers["content-type"]) == (code, "application/json"), answer.text
        return strict_json(answer.text)

    return get
