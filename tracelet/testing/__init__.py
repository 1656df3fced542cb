"""For authors of plug-ins: suites that say what each kind of plug-in must do, and a backend that fails on command.

    from tracelet.testing import BackendContract

    class TestAcmeBackend(BackendContract):
        @pytest.fixture
        def backend(self): ...
        @pytest.fixture
        def stored(self): ...

Imported by tests only. pytest is needed for the suites; `MemoryBackend` does without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tracelet.testing.backend_contract import BackendContract
    from tracelet.testing.collector_contract import CollectorContract
    from tracelet.testing.framework_contract import FrameworkContract
    from tracelet.testing.importer_contract import ImporterContract
    from tracelet.testing.memory_backend import MemoryBackend
    from tracelet.testing.processor_contract import ProcessorContract

_SUITES: Final = {
    "BackendContract": "tracelet.testing.backend_contract",
    "CollectorContract": "tracelet.testing.collector_contract",
    "FrameworkContract": "tracelet.testing.framework_contract",
    "ImporterContract": "tracelet.testing.importer_contract",
    "ProcessorContract": "tracelet.testing.processor_contract",
}

__all__ = [
    "BackendContract",
    "CollectorContract",
    "FrameworkContract",
    "ImporterContract",
    "MemoryBackend",
    "ProcessorContract",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is used (PEP 562)."""
    if name == "MemoryBackend":
        from tracelet.testing.memory_backend import MemoryBackend

        return MemoryBackend
    if name not in _SUITES:
        raise AttributeError(f"module 'tracelet.testing' has no attribute {name!r}")
    from tracelet.utils.imports import require

    # So that a failing `assert` of a suite shows its values, as it does in a test module. One suite imports another.
    pytest = require("pytest", f"tracelet.testing.{name}")
    pytest.register_assert_rewrite("tracelet.testing.plugin_contract", *_SUITES.values())
    return getattr(importlib.import_module(_SUITES[name]), name)
