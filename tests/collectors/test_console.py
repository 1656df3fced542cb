"""What a program prints is recorded, and comes out as if nobody had looked.

Each program runs twice, once without the capture: what comes out must be the same, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.collectors.support import running
from tracelet import load_run
from tracelet.collectors._environment.screen import MAX_LINE_CHARS, Screen
from tracelet.collectors._environment.transcript import MAX_TEXT_CHARS, Transcript
from tracelet.collectors.environment_collector import EnvironmentCollector
from tracelet.core.records import MetricType
from tracelet.utils.redaction import Redactor

PROGRAM = Path(__file__).with_name("console_program.py")
ROOT = Path(__file__).parents[2]
TALK = "from Python\nfrom a descriptor\nfrom a child\nfrom C\nstep 100 of 100\nterminals {0} {0}\ncoloured"


class Ended(NamedTuple):
    output: str
    code: int
    texts: dict[str, str]
    status: str


def start(destination: str, mode: str, end: str, place: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The program, and where its output can be read."""
    place.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | {"PYTHONPATH": str(ROOT)}
    if destination == "terminal":
        reading, writing = pty.openpty()
    elif destination == "pipe":
        reading, writing = os.pipe()
    else:
        writing = os.open(place / "log", os.O_CREAT | os.O_WRONLY)
        os.write(writing, b"from before\n")
        reading = os.open(place / "log", os.O_RDONLY)
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), mode, end], stdout=writing, stderr=writing, cwd=place, env=environment
    )
    os.close(writing)
    return process, reading


def run(destination: str, mode: str, end: str, place: Path) -> Ended:
    process, reading = start(destination, mode, end, place)
    output = b""
    if destination == "file":
        process.wait(100)
    with contextlib.suppress(OSError):  # So a terminal ends.
        while data := os.read(reading, 1 << 16):
            output += data
    os.close(reading)
    code = process.wait(100)
    texts: dict[str, str] = {}
    deadline_s = time.monotonic() + 60
    while True:
        loaded = load_run("x", place / "tracelet_runs")
        records = loaded.records(MetricType.TEXT)
        if mode == "off" or records or time.monotonic() > deadline_s:
            break
        time.sleep(0.05)  # The relay of a program that was killed records by itself.
    for record in records:
        texts[record.name] = texts.get(record.name, "") + record.value + "\n"
    return Ended(output.decode(), code, texts, loaded.status.value)


@pytest.mark.parametrize("destination", ["terminal", "pipe", "file"])
def test_all_that_a_program_prints_is_recorded_and_comes_out_as_ever(destination, tmp_path):
    plain = run(destination, "off", "stopped", tmp_path / "plain")
    ended = run(destination, "auto", "stopped", tmp_path / "captured")
    assert plain.output == ended.output
    assert "after the end" in ended.output
    assert (0, {}) == (ended.code, plain.texts)
    assert {"console/output": TALK.format(destination == "terminal") + "\n"} == ended.texts


@pytest.mark.parametrize("destination", ["terminal", "pipe", "file"])
def test_of_a_program_that_was_killed_all_output_is_recorded_and_comes_out(destination, tmp_path):
    plain = run(destination, "off", "killed", tmp_path / "plain")
    ended = run(destination, "auto", "killed", tmp_path / "captured")
    assert plain.output == ended.output
    assert (-9, "killed") == (ended.code, ended.status)
    assert TALK.format(destination == "terminal") + "\n" == ended.texts["console/output"]


@pytest.mark.parametrize("destination", ["terminal", "pipe"])
def test_a_relay_that_dies_costs_the_record_and_no_output(destination, tmp_path):
    plain = run(destination, "off", "orphaned", tmp_path / "plain")
    process, reading = start(destination, "auto", "orphaned", tmp_path / "captured")
    output = b""
    with contextlib.suppress(OSError):
        while data := os.read(reading, 1 << 16):
            output += data
    os.close(reading)
    assert 0 == process.wait(100)
    # The warning may come into the middle of a line, from another thread.
    printed, warnings = re.subn(r"the process that records the output has died[^\r\n]*\r?\n", "", output.decode())
    assert plain.output == printed
    assert warnings <= 1


@pytest.mark.parametrize("destination", ["terminal", "pipe"])
def test_a_library_that_prints_much_and_holds_the_interpreter_does_not_stand_still(destination, tmp_path):
    ended = run(destination, "auto", "flood", tmp_path / "captured")
    assert 20_000 == ended.output.count("x" * 99)
    assert 20_000 == ended.texts["console/output"].count("x" * 99 + "\n")


def test_a_worker_that_outlives_the_program_still_prints(tmp_path):
    ended = run("pipe", "auto", "outlived", tmp_path / "captured")
    assert ended.output.endswith("from a worker that outlived it\n")
    assert "coloured" in ended.texts["console/output"]


def test_a_redirection_of_the_users_own_stays(tmp_path):
    ended = run("pipe", "auto", "own", tmp_path / "captured")
    assert ended.output.endswith("/dev/null\n")
    assert "from Python" not in ended.output


def test_standard_output_and_standard_error_are_told_apart(tmp_path):
    (tmp_path / "p").mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(PROGRAM), "auto", "stopped"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path / "p", env=environment, timeout=100, check=True)
    assert done.stderr == b"from a descriptor\n"
    texts = {r.name: r.value for r in load_run("x", tmp_path / "p" / "tracelet_runs").records(MetricType.TEXT)}
    assert texts == {
        "console/stdout": TALK.format(False).replace("from a descriptor\n", ""),
        "console/stderr": "from a descriptor",
    }


def test_under_pytest_nothing_is_switched(tmp_path):
    before = os.fstat(1), os.fstat(2), sys.stdout, sys.stderr
    collector = running(EnvironmentCollector(), run_dir=tmp_path)
    assert {} == collector.get_status()["console"]
    assert before == (os.fstat(1), os.fstat(2), sys.stdout, sys.stderr)
    collector.stop()


# -- the screen --------------------------------------------------------------------------------------------------------


def shown(*parts: bytes) -> list[str]:
    screen = Screen()
    for part in parts:
        screen.feed(part)
    return screen.take(is_last=True)


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"\r  0%\r 50%\r100%\ndone\n", ["100%", "done"]),
        (b"long text\rab\n", ["abng text"]),
        (b"long text\r\x1b[Kab\n", ["ab"]),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\n", ["red plain"]),
        (b"abc\b\bX\n", ["aXc"]),
        (b"one\ntwo\n\x1b[2Anew\n", ["new", "two"]),  # Two nested bars.
        (b"\n\rbar 1\x1b[A\rbar 0\n\x1b[B", ["bar 0", "bar 1"]),
        (b"\n\n\n", ["", "", ""]),
        (b"", []),
        ("grüße ░▒▓\n".encode(), ["grüße ░▒▓"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        (b"\x1b[999999999999999A\x1b[5000000Cx\n", [" x"]),
    ],
)
def test_a_screen_shows_what_a_terminal_would(printed, lines):
    assert lines == shown(printed)
    assert lines == shown(*(printed[i : i + 1] for i in range(len(printed))))  # However it is cut.


def test_a_bar_that_still_moves_is_not_given_out():
    screen = Screen()
    screen.feed(b"epoch 1\n\r 10%")
    assert ["epoch 1"] == screen.take()
    screen.feed(b"\r 20%")
    assert [] == screen.take()
    screen.feed(b"\r100%\n")
    assert ["100%"] == screen.take()


def test_a_screen_is_bounded():
    screen = Screen()
    screen.feed(b"x" * 10_000_000)
    screen.feed(b"\x1b[" + b"1" * 1_000_000)
    (line,) = screen.take(is_last=True)
    assert MAX_LINE_CHARS == len(line)
    assert "…" == line[-1]


# -- the transcript ----------------------------------------------------------------------------------------------------


def test_texts_are_short_enough_for_every_tracker_and_numbered():
    texts: list[tuple[str, int]] = []
    transcript = Transcript(lambda text, number: texts.append((text, number)), 10_000_000, Redactor())
    transcript.feed(b"".join(b"line %d\n" % n for n in range(10_000)))
    transcript.flush()
    assert [*range(len(texts))] == [number for _, number in texts]
    assert all(len(text) <= MAX_TEXT_CHARS for text, _ in texts)
    assert [f"line {n}" for n in range(10_000)] == "\n".join(text for text, _ in texts).split("\n")


def test_of_too_much_output_the_beginning_and_the_end_are_kept():
    texts: list[str] = []
    transcript = Transcript(lambda text, number: texts.append(text), 1000, Redactor())
    for n in range(100_000):
        transcript.feed(b"line %d\n" % n)
        if n % 100 == 0:
            transcript.flush()
    transcript.flush(is_last=True)
    assert texts[0].startswith("line 0")
    assert texts[-1].endswith("\nline 99998\nline 99999")
    assert "lines are left out" in texts[-1]
    assert sum(map(len, texts)) < 1000 + MAX_TEXT_CHARS


def test_credentials_are_hidden():
    texts: list[str] = []
    secret = "-".join(["not", "a", "real", "password"])
    transcript = Transcript(lambda text, number: texts.append(text), 1000, Redactor())
    transcript.feed(f"connecting to https://me:{secret}@host/x\npassword={secret}\n".encode())
    transcript.flush(is_last=True)
    assert secret not in texts[0]
    assert "connecting to https://" in texts[0]


def test_nothing_but_blank_lines_makes_no_text():
    texts: list[str] = []
    transcript = Transcript(lambda text, number: texts.append(text), 1000, Redactor())
    transcript.feed(b"\n  \n\n")
    transcript.flush(is_last=True)
    assert [] == texts


def test_where_no_relay_can_be_started_the_output_goes_where_it_went(tmp_path):
    code = (
        "import os, subprocess, sys\n"
        "from tracelet.collectors._environment import console\n"
        "class Dead(subprocess.Popen):\n"
        "    def __init__(self, command, **options): super().__init__(['true'], **options); self.wait()\n"
        "console.subprocess.Popen = Dead\n"
        "from tracelet.utils.redaction import Redactor\n"
        "capture = console.ConsoleCapture('/nowhere', 'always', 1000, Redactor())\n"
        "try: capture.start()\n"
        "except BrokenPipeError: print('no relay', flush=True)\n"
        "capture.stop()\nprint('done')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100, check=True
    )
    assert ("no relay\ndone\n", "") == (done.stdout, done.stderr)
