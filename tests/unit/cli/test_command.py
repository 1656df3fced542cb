"""What all commands have in common."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tracelet import __version__
from tracelet.cli import make_app

MAIN = [sys.executable, "-c", "from tracelet.cli import main; main()"]
HOSTILE = "\x1b]0;pwned\x07\x1b[2J[bold red]x[/]\u202e\n\r=cmd\ud800"
ESCAPED = r"\x1b]0;pwned\x07\x1b[2J[bold red]x[/]\u202e\n\r=cmd\ud800"

COMMANDS = [
    ["runs"],
    ["runs", "--sort", "params.lr", "--filter", "status!=x"],
    ["show"],
    ["plot", "latest", "*"],
    ["compare", "run1", "run2"],
    ["export"],
    ["doctor"],
    ["version"],
]


@pytest.fixture
def hostile_runs(make_run):
    for run_id in ("run1", "run2"):
        make_run(
            run_id, HOSTILE, project=HOSTILE, params={HOSTILE: run_id + HOSTILE}, tags={HOSTILE: HOSTILE},
            series={HOSTILE: [1.0]}, texts={HOSTILE: HOSTILE}, status="failed", error=HOSTILE,
        )  # fmt: skip


def on_a_terminal(arguments, **environment):
    """What a command prints to a terminal of 80 columns."""
    mine, theirs = pty.openpty()
    full = {**os.environ, "TERM": "xterm-256color", **environment}
    with subprocess.Popen(MAIN + arguments, stdout=theirs, stderr=theirs, env=full) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(mine, 65536)
            except OSError:  # What Linux says at the end of a terminal.
                break
            if not part:
                break
            parts.append(part)
    os.close(mine)
    assert 0 == process.returncode
    return b"".join(parts).decode()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_of_a_run_reaches_the_terminal_as_a_command(hostile_runs, tracelet, command):
    output = tracelet(*command).output
    if command[0] == "export":  # Data for a program; see the next test for a terminal.
        return
    assert not [char for char in output if not char.isprintable() and char != "\n"]
    assert not [line for line in output.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("command", ["show", "runs", "export"])
def test_names_are_shown_escaped_and_markup_is_not_interpreted(hostile_runs, command):
    output = on_a_terminal([command], COLUMNS="200")
    assert "\x1b]0;" not in output
    assert "\x1b[2J" not in output
    assert ESCAPED[:12] in output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_speaks_strict_json(hostile_runs, read_json, command):
    read_json(*command)


@pytest.mark.parametrize("command", ["show", "plot", "export"])
def test_an_unknown_run_is_one_line_on_stderr(demo, tracelet, command):
    result = tracelet(command, "mlp-smal", code=1)
    assert "" == result.stdout
    assert result.stderr.startswith("Error: no run 'mlp-smal' (did you mean 'mlp-small'?) in 'tracelet_runs'")
    assert 1 == result.stderr.count("\n")


def test_a_wrong_setting_is_an_error_without_traceback(tracelet, monkeypatch):
    monkeypatch.setenv("TRACELET_PROJCT", "x")
    error = tracelet("runs", code=1).stderr
    assert error.startswith("Error: Tracelet's settings are wrong:\n- environment variable TRACELET_PROJCT")


def test_a_directory_that_is_given_needs_no_settings(make_run, tracelet, monkeypatch):
    make_run()
    monkeypatch.setenv("TRACELET_PROJCT", "x")
    assert "run1" in tracelet("runs", "--dir", "tracelet_runs").stdout


def test_the_directory_of_the_settings_is_read(make_run, tracelet, monkeypatch, tmp_path):
    make_run()
    (tmp_path / "tracelet_runs").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("TRACELET_DIR", "elsewhere")
    assert "run1" in tracelet("runs").stdout


def test_a_wrong_option_is_a_usage_error(tracelet):
    assert "No such option" in tracelet("runs", "--nonsense", code=2).stderr


def test_the_version_is_told(tracelet, read_json):
    assert f"tracelet {__version__}\n" == tracelet("version").stdout == tracelet("--version").stdout
    assert {"version": __version__} == read_json("version")


def test_every_command_has_help(tracelet):
    commands = [command.name for command in make_app().registered_commands]
    looking = ["runs", "show", "plot", "compare", "ui", "report", "export", "ranks", "artifacts"]
    moving = ["import", "plan", "sync", "status", "verify", "prune", "archive", "unarchive"]
    assert [*looking, *moving, "plugins", "doctor", "version"] == commands
    for command in commands:
        assert f"Usage: tracelet {command}" in tracelet(command, "-h").stdout


def test_help_loads_nothing_heavy():
    code = "import sys; from tracelet.cli import make_app\ntry: make_app()(['--help'])\nfinally: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "tracelet.cli.runs" in loaded
    assert not {"numpy", "pydantic", "plotext", "matplotlib", "pyarrow", "pandas", "torch"} & set(loaded)


def test_a_terminal_gets_colours_and_no_color_takes_them_away(demo):
    assert "\x1b[31mfailed" in on_a_terminal(["runs"])
    assert "\x1b[31m" not in on_a_terminal(["runs"], NO_COLOR="1")
    assert "\x1b[36m" in on_a_terminal(["plot", "mlp-small"])
    assert "\x1b[36m" not in on_a_terminal(["plot", "mlp-small"], NO_COLOR="1")


@pytest.mark.parametrize("command", [["runs"], ["export"], ["show"], ["version", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(make_run, command):
    make_run(series={f"metric{number}": [0.5] * 3000 for number in range(10)})
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.run(
        MAIN + command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered
    )
    os.close(writer)
    assert "" == process.stderr


def test_a_terminal_without_unicode_shows_something_else(demo):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for command in (["show", "mlp-small"], ["plot", "mlp-small"]):
        process = subprocess.run(MAIN + command, check=False, capture_output=True, text=True, env=environment)
        assert (0, "") == (process.returncode, process.stderr)
