"""What the tests of `sync`, `plan` and `verify` share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tracelet.core.plugins import BackendPlugin, PluginManager


def stand_in(backend: BackendPlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this instance be what its name means, in place of a new one each time."""
    load, name = PluginManager.load, backend.get_metadata().name

    def instead(self: PluginManager, wanted: str):
        if wanted != name:
            return load(self, wanted)
        return self._plugins.get(name) or self.register_plugin(backend)

    monkeypatch.setattr(PluginManager, "load", instead)


def killed_run() -> Path:
    """The directory of a run whose process was killed after one value of `loss`."""
    code = """
    import os, signal
    from tracelet import Experiment

    experiment = Experiment("e").start()
    experiment.log_metric("loss", 1.0, 0)
    print(experiment.run_dir, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(os.environ))
    assert -signal.SIGKILL == done.returncode, done.stderr
    return Path(done.stdout.strip())
