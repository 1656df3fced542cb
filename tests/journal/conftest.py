from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tracelet.journal.writer import _live_writers


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests prove holds without it, and a device that is busy with something else would hold them up."""
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


@pytest.fixture(autouse=True)
def no_writer_outlives_its_test() -> Iterator[None]:
    yield
    for writer in list(_live_writers):
        writer.close()
