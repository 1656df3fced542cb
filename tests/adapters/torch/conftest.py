"""Each test leaves no experiment running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tracelet


@pytest.fixture(autouse=True)
def stopped_experiments() -> Iterator[None]:
    yield
    while (experiment := tracelet.get_active_experiment()) is not None:
        experiment.stop()
