"""Weights & Biases under the suite of all backends: the real SDK, offline into files and online to a loopback service."""

from __future__ import annotations

import contextlib
import html
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import wandb_files
from tests.backends.wandb_service import children
from tracelet.backends._wandb_mapping import series_name
from tracelet.backends.wandb_backend import WandbBackend
from tracelet.testing import BackendContract


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class TestWandbBackendOffline(BackendContract):
    @pytest.fixture
    def backend(self):
        return WandbBackend()

    @pytest.fixture
    def files(self, tmp_path: Path):
        return lambda: wandb_files.read(wandb_files.files_of(tmp_path))

    @pytest.fixture
    def stored(self, files):
        return lambda: wandb_files.points(files())

    @pytest.fixture
    def stored_params(self, files):
        def read() -> dict[str, Any]:
            config = files().config
            return {series_name(key): value for key, value in config.items() if not key.startswith(("tracelet/", "_"))}

        return read

    @pytest.fixture
    def stored_texts(self, files, tmp_path: Path):
        def read() -> dict[str, str]:
            (folder,) = tmp_path.glob("wandb/*run-*/files")
            texts = {}
            for row in files().rows:
                for key, value in row.items():
                    if isinstance(value, dict) and value["_type"] == "html-file":
                        text = (folder / value["path"]).read_text("utf-8")
                        texts[key] = html.unescape(text.removeprefix("<pre>").removesuffix("</pre>"))
            return texts

        return read

    @pytest.fixture
    def stored_tags(self, files):
        prefix = "tracelet/tag/"
        return lambda: {
            key.removeprefix(prefix): value for key, value in files().config.items() if key.startswith(prefix)
        }

    @pytest.fixture
    def outage(self, backend: WandbBackend):
        @contextlib.contextmanager
        def without_core() -> Iterator[None]:
            process = backend._process
            for pid in children(process.pid) if process else ():
                os.kill(pid, signal.SIGKILL)
            yield

        return without_core
