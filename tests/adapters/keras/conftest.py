"""Each test runs with each backend of Keras that is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.keras.workers import BACKENDS, KerasProcess


@pytest.fixture(params=BACKENDS, scope="session")
def keras(request: pytest.FixtureRequest) -> Iterator[KerasProcess]:
    process = KerasProcess(request.param)
    yield process
    process.close()
