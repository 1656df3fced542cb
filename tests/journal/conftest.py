from __future__ import annotations

from collections.abc import Iterator

import pytest

from tracelet.journal.writer import _live_writers


@pytest.fixture(autouse=True)
def no_writer_outlives_its_test() -> Iterator[None]:
    yield
    for writer in list(_live_writers):
        writer.close()
