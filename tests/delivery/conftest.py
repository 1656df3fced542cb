from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.support import Delivery
from tracelet.testing import MemoryBackend


@pytest.fixture
def delivery(tmp_path: Path) -> Iterator[Delivery]:
    with Delivery(tmp_path) as made:
        yield made


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()
