"""docs/cli.md: every command in it runs, and what it shows is what comes out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
COMMAND = re.compile(r"^\$ tracelet (?P<arguments>.*)\n(?P<output>(?:(?!\$ |```).*\n)*)", re.MULTILINE)


def blocks(language):
    """The commands of the blocks in a language, each with the output below it."""
    text = "".join(re.findall(rf"^```{language}\n(.*?^```\n)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    return [(match["arguments"], match["output"]) for match in COMMAND.finditer(text)]


@pytest.mark.parametrize(("arguments", "output"), blocks("console"))
def test_a_command_prints_what_the_page_says(demo, tracelet, arguments, output):
    assert output == tracelet(*shlex.split(arguments)).stdout


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in blocks("text")])
def test_a_command_whose_output_depends_on_the_machine_runs(demo, tracelet, arguments):
    tracelet(*shlex.split(arguments))


def test_every_command_has_an_example():
    shown = {arguments.split()[0] for arguments, _ in blocks("console") + blocks("text")}
    delivery = {"plan", "sync", "status", "verify", "ranks"}  # `ui` serves until Ctrl-C: see tests/ui.
    housekeeping = {"prune", "archive", "plugins", "doctor", "version"}
    assert {"runs", "show", "artifacts", "plot", "compare", "export", *delivery, *housekeeping} == shown
