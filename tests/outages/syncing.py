"""`tracelet sync` in a process that a test starts in order to kill it."""

from __future__ import annotations

import importlib
import multiprocessing.synchronize
import os
from collections.abc import Mapping
from pathlib import Path

from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.core.sync import sync_run
from tracelet.settings import TraceletSettings

BATCH = 50  # Records a request, so that a few thousand of them are many requests.


def sync(run_dir: Path, environment: Mapping[str, str], has_begun: multiprocessing.synchronize.Event) -> None:
    """Send what MLflow has not got."""
    os.chdir(run_dir)
    os.environ.update(environment)
    MLflowBackend.max_batch = BATCH
    importlib.import_module("mlflow.utils.rest_utils")  # It takes seconds, where it has not been preloaded.
    importlib.import_module("mlflow.utils.credentials")
    has_begun.set()
    sync_run(run_dir, ["mlflow"], TraceletSettings.load())
