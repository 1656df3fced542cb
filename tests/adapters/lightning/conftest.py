"""Each test runs in both namespaces of Lightning, and leaves no experiment running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tracelet
from tests.adapters.lightning.helpers import Lightning


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request: pytest.FixtureRequest) -> Lightning:
    return Lightning.named(request.param)


@pytest.fixture(autouse=True)
def stopped_experiments() -> Iterator[None]:
    yield
    while (experiment := tracelet.get_active_experiment()) is not None:
        experiment.stop()
