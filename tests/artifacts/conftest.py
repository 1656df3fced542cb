"""Runs and files of the tests of artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifacts.support import LARGE
from tracelet import Experiment


@pytest.fixture
def experiment() -> Iterator[Experiment]:
    experiment = Experiment("e").start()
    yield experiment
    experiment.stop()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with a small file and a large one."""
    (tmp_path / "data" / "part").mkdir(parents=True)
    (tmp_path / "data" / "part" / "small.csv").write_bytes(b"1,2")
    (tmp_path / "data" / "large.bin").write_bytes(LARGE)
    return tmp_path / "data"
