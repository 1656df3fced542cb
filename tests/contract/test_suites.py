"""The suites themselves: each fault of the `broken_*.py` beside this file is found by the tests for it."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.contract import broken_backends, broken_sources

MODULES = (broken_backends, broken_sources)
CASES = {name: case for module in MODULES for name, case in vars(module).items() if name.startswith("Test")}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    report = tmp_path_factory.mktemp("report") / "report.xml"
    # The test that starts a process takes its time: it runs only where it is to find something.
    wanted = "not importing_the_module or TestImportsItsSdk"
    files = [module.__file__ for module in MODULES]
    command = [sys.executable, "-m", "pytest", "-q", "-k", wanted, *files, f"--junit-xml={report}"]
    done = subprocess.run(command, check=False, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    found = defaultdict(set)
    for case in ElementTree.parse(report).iter("testcase"):
        assert case.find("skipped") is None
        if case.find("failure") is not None or case.find("error") is not None:
            found[case.attrib["classname"].rpartition(".")[2]].add(case.attrib["name"].partition("[")[0])
    return found


@pytest.mark.parametrize("case", CASES)
def test_suite_finds_the_fault(case: str, failures: dict[str, set[str]]):
    expected = CASES[case].caught_by
    found = failures.get(case, set())
    assert expected <= found
    assert bool(expected) == bool(found)
