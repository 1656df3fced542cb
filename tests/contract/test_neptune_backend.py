"""The Neptune backend under the suite of all backends, with the real client, offline."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.neptune_files import stored_run
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.testing import BackendContract


class TestNeptuneBackend(BackendContract):
    subject = NeptuneBackend

    @pytest.fixture
    def backend(self):
        return NeptuneBackend()

    @pytest.fixture
    def stored(self):
        return lambda: stored_run().scalars()

    @pytest.fixture
    def stored_params(self):
        return lambda: stored_run().under("parameters/")

    def param_as_stored(self, value: Any) -> Any:
        if isinstance(value, (list, dict)):
            return json.dumps(value)
        return "None" if value is None else value

    @pytest.fixture
    def stored_texts(self):
        return lambda: stored_run().texts()

    @pytest.fixture
    def stored_tags(self):
        return lambda: stored_run().under("tags/")

    @pytest.fixture
    def outage(self):
        folder, moved = Path(".neptune"), Path("moved")

        @contextlib.contextmanager
        def unreachable() -> Iterator[None]:
            if folder.exists():
                folder.rename(moved)
            folder.write_text("a file where the client's folder should be")
            yield
            folder.unlink()
            if moved.exists():
                moved.rename(folder)

        return unreachable
