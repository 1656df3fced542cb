"""No experiment of one test goes on in the next one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tracelet import Experiment


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    yield
    for experiment in tuple(Experiment._active):
        experiment.stop()
