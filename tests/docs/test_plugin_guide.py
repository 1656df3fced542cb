"""The plug-in guide is true: its snippets run in order, and its files are a package that passes its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.guide import ROOT, snippets, write_package
from tracelet import Experiment, load_run
from tracelet.testing import CollectorContract, FrameworkContract, ProcessorContract

IN_ORDER = [code for language, title, code in snippets() if (language, title) == ("python", None)]


@pytest.fixture(scope="module")
def guide() -> dict[str, object]:
    """What the snippets define."""
    names: dict[str, object] = {"__name__": "guide"}
    for snippet in IN_ORDER:
        exec(compile(snippet, "plugin-guide.md", "exec", dont_inherit=True), names)  # noqa: S102  Our own page.
    return names


def test_snippets_run_as_they_stand(guide: dict[str, object]):
    assert {"LoadCollector", "OptimizerSteps", "Thinning"} <= set(guide)


def test_fences_say_what_they_are():
    assert {"python", "toml", "bash", ""} == {language for language, _, _ in snippets()}


def test_package_of_the_guide_passes_its_own_tests(tmp_path: Path):
    write_package(tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_framework_of_the_guide_records_a_training(guide: dict[str, type]):
    experiment = Experiment("torch")
    experiment.register_plugin(guide["OptimizerSteps"]())
    with experiment:
        train_with_torch()
    train_with_torch()
    series = load_run(experiment.run_dir).series("lr")
    assert ([0, 1, 2], [0.125] * 3) == (series.steps.tolist(), series.values.tolist())


def train_with_torch() -> list[float]:
    import torch

    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.125)
    for _ in range(3):
        (weight**2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return weight.tolist()


class TestLoadCollector(CollectorContract):
    @pytest.fixture
    def collector(self, guide: dict[str, type], monkeypatch: pytest.MonkeyPatch):
        return importable(guide["LoadCollector"], monkeypatch)


class TestOptimizerSteps(FrameworkContract):
    @pytest.fixture
    def framework(self, guide: dict[str, type], monkeypatch: pytest.MonkeyPatch):
        return importable(guide["OptimizerSteps"], monkeypatch)

    @pytest.fixture
    def train(self):
        return train_with_torch


class TestThinning(ProcessorContract):
    @pytest.fixture
    def processor(self, guide: dict[str, type], monkeypatch: pytest.MonkeyPatch):
        return importable(guide["Thinning"], monkeypatch)


def importable(plugin: type, monkeypatch: pytest.MonkeyPatch) -> object:
    """A snippet has no module; the suite imports one in a new process, and looks what comes with it."""
    monkeypatch.setattr(plugin, "__module__", "tracelet.core.plugins")
    return plugin()


def test_page_on_backends_is_true():
    page = (ROOT / "docs" / "backends" / "index.md").read_text()
    code = [text for language, title, text in snippets(page) if (language, title) == ("python", None)]
    assert 1 == len(code)
    for text in code:
        exec(compile(text, "backends/index.md", "exec", dont_inherit=True), {"__name__": "page"})  # noqa: S102 - our own
    (included,) = re.findall(r'^--8<-- "(.*)"$', page, re.MULTILINE)
    assert (ROOT / included).is_file()
    shown = {path.name for path in Path("tracelet_runs").glob("*/*/delivery/jsonl/*")}
    assert {"cursor.json", "lock", "records.jsonl", "status.json"} == shown
