"""What every test stands on: an empty working directory, and no settings from the developer's own environment."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Several tests run at once, each with processes of its own: threads that wait for each other would cost more than they
# give. Before anything has imported numpy or torch, and for all processes that the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A machine under load is no failure: no test has a deadline but pytest's own timeout.
hypothesis.settings.register_profile("tracelet", deadline=None)
hypothesis.settings.load_profile("tracelet")


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the runs of a test out of the project, and the developer's settings out of the test."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TRACELET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACELET_COLLECTORS", "")  # A test says so if it is about them.
