from __future__ import annotations

from collections.abc import Iterator

import pytest

from tracelet import Experiment


@pytest.fixture
def experiment() -> Iterator[Experiment]:
    with Experiment("e", collectors=()) as experiment:
        yield experiment
