"""What every plug-in must do, whatever its kind; the suites of the kinds inherit from it.

Run by pytest. A suite calls the plug-in as Tracelet does: its life cycle on one thread, which is not the training's.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import uuid
from abc import ABC
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tracelet.core.plugins import PluginBase, PluginMetadata, PluginType

OnWorker = Callable[[Callable[[], Any]], Any]
"""Calls a function on the plug-in's thread, and gives back what it gives, its exception included."""


class PluginContract(ABC):
    """The suite of one kind gives the fixture `plugin` and the kind; the author's test class the rest."""

    kind: PluginType

    @pytest.fixture
    def plugin(self) -> PluginBase:
        """A new plug-in of which nothing has been called."""
        pytest.fail("give the fixture `plugin`")

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        """The plug-in's own settings, with which it works here. None by default."""
        return {}

    @pytest.fixture
    def full_config(self, config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
        """What `initialize` gets: the settings, and what the run is."""
        run_dir = tmp_path / "tracelet_runs" / "contract" / "run1"
        state_dir = run_dir / "delivery" / "plugin"
        state_dir.mkdir(parents=True)
        facts = {"run_name": "contract", "run_id": "run1", "run_project": "contract", "run_uuid": uuid.uuid4().hex}
        places = {"run_dir": run_dir, "state_dir": state_dir}
        interval = {"interval": 1.0} if self.kind is PluginType.COLLECTOR else {}
        origin = {"run_created_s": 1_750_000_000.0, "run_program": "/home/me/train.py"}
        return {**facts, **origin, **places, **interval, **config}

    @pytest.fixture
    def on_worker(self) -> Iterator[OnWorker]:
        """The thread that a plug-in's calls come on."""
        with ThreadPoolExecutor(1, thread_name_prefix="tracelet-contract") as worker:
            yield lambda call: worker.submit(call).result()

    @pytest.fixture
    def started(self, plugin: PluginBase, full_config: dict[str, Any], on_worker: OnWorker) -> Iterator[PluginBase]:
        """The plug-in while it runs; it is stopped at the latest when the test ends."""
        on_worker(lambda: plugin.initialize(full_config))
        on_worker(plugin.start)
        yield plugin
        on_worker(plugin.stop)

    def test_metadata_says_who_it_is(self, plugin: PluginBase) -> None:
        """Users write its name in settings and on the command line: so it is lower case, without blanks."""
        metadata = plugin.get_metadata()
        assert isinstance(metadata, PluginMetadata)
        assert metadata.type is self.kind
        assert metadata.name == "".join(metadata.name.lower().split()) != ""
        assert metadata.version != ""

    def test_metadata_is_told_by_the_class(self, plugin: PluginBase) -> None:
        """`get_metadata` is asked before anything else, so it can't depend on what `initialize` does."""
        assert type(plugin).get_metadata().type is self.kind

    def test_dependencies_are_requirements(self, plugin: PluginBase) -> None:
        """As pip writes them."""
        for dependency in plugin.get_metadata().dependencies:
            Requirement(dependency)

    def test_importing_the_module_imports_no_dependency(self, plugin: PluginBase) -> None:
        """Heavy packages are imported by `initialize`, not by whoever only lists plug-ins."""
        needed: set[str] = {canonicalize_name(Requirement(text).name) for text in plugin.get_metadata().dependencies}
        modules = {name for name in needed if name.isidentifier()}
        for module, distributions in packages_distributions().items():
            if needed.intersection(map(canonicalize_name, distributions)):
                modules.add(module)
        code = f"import sys, {type(plugin).__module__}; print(*sorted({modules!r}.intersection(sys.modules)))"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == []

    def test_status_is_readable_in_every_state(
        self, plugin: PluginBase, full_config: dict[str, Any], on_worker: OnWorker
    ) -> None:
        """From another thread than the plug-in's own."""
        assert isinstance(plugin.get_status(), dict)
        for step in (lambda: plugin.initialize(full_config), plugin.start, plugin.stop):
            on_worker(step)
            assert isinstance(plugin.get_status(), dict)

    def test_stop_twice_is_stop(self, started: PluginBase, on_worker: OnWorker) -> None:
        """The fixture calls it once more."""
        on_worker(started.stop)

    def test_stop_without_start_does_nothing(
        self, plugin: PluginBase, full_config: dict[str, Any], on_worker: OnWorker
    ) -> None:
        """Neither before `initialize` nor before `start`."""
        on_worker(plugin.stop)
        on_worker(lambda: plugin.initialize(full_config))
        on_worker(plugin.stop)

    def test_initialize_can_be_called_again(
        self, plugin: PluginBase, full_config: dict[str, Any], on_worker: OnWorker
    ) -> None:
        """As it is after it has failed."""
        for _ in range(2):
            on_worker(lambda: plugin.initialize(dict(full_config)))
        on_worker(plugin.start)
        on_worker(plugin.stop)

    def test_the_process_is_left_as_it_was(
        self, plugin: PluginBase, full_config: dict[str, Any], on_worker: OnWorker
    ) -> None:
        """It is the user's: environment, working directory, signal handlers, logging, hooks and streams."""
        before = _process_state()
        for step in (lambda: plugin.initialize(full_config), plugin.start, plugin.stop):
            on_worker(step)
            assert _process_state() == before

    def test_configuration_is_left_as_it_is(
        self, plugin: PluginBase, full_config: dict[str, Any], on_worker: OnWorker
    ) -> None:
        """It may belong to somebody else as well."""
        before = copy.deepcopy(full_config)
        on_worker(lambda: plugin.initialize(full_config))
        on_worker(plugin.start)
        on_worker(plugin.stop)
        assert full_config == before


def _process_state() -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "start method": multiprocessing.get_start_method(allow_none=True),
    }
