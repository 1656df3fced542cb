from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tracelet.journal import forking
from tracelet.journal.writer import JournalWriter


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests prove holds without it, and a device that is busy with something else would hold them up."""
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


@pytest.fixture(autouse=True)
def no_writer_outlives_its_test() -> Iterator[None]:
    yield
    for writer in forking.watched():
        if isinstance(writer, JournalWriter):  # The others are the locks of deliveries.
            writer.close()
