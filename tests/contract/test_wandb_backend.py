"""Weights & Biases under the suite of all backends: the real SDK, offline into files, online to a loopback service."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import wandb_files
from tests.backends.wandb_service import KEY, WandbService, kill_core
from tracelet.backends._wandb.mapping import series_name
from tracelet.backends.wandb_backend import WandbBackend
from tracelet.testing import BackendContract


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def config_of(stored: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    if prefix:
        return {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    return {series_name(key): value for key, value in stored.items() if not key.startswith(("tracelet/", "_"))}


class TestWandbBackendOffline(BackendContract):
    subject = WandbBackend

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
        return lambda: config_of(files().config)

    @pytest.fixture
    def stored_texts(self, files, tmp_path: Path):
        def read() -> dict[str, str]:
            (folder,) = tmp_path.glob("wandb/*run-*/files")
            texts = {}
            for row in files().rows:
                note = row["note"]
                text = (folder / note["path"]).read_text("utf-8")
                texts["note"] = html.unescape(text.removeprefix("<pre>").removesuffix("</pre>"))
            return texts

        return read

    @pytest.fixture
    def stored_tags(self, files):
        return lambda: config_of(files().config, "tracelet/tag/")

    @pytest.fixture
    def outage(self, backend: WandbBackend):
        @contextlib.contextmanager
        def without_core() -> Iterator[None]:
            kill_core(backend)
            yield

        return without_core


class TestWandbBackendOnline(BackendContract):
    subject = WandbBackend

    @pytest.fixture
    def service(self):
        with WandbService() as service:
            yield service

    @pytest.fixture
    def config(self, service: WandbService):
        return {"base_url": service.url, "api_key": KEY, "timeout_s": 5, "finish_timeout_s": 20}

    @pytest.fixture
    def backend(self):
        return WandbBackend()

    @pytest.fixture
    def served(self, service: WandbService, full_config: dict[str, Any]):
        return lambda: service.runs[full_config["run_uuid"]]

    @pytest.fixture
    def stored(self, served):
        return lambda: wandb_files.points(wandb_files.Stored(served().rows, served().config))

    @pytest.fixture
    def stored_params(self, served):
        return lambda: config_of(served().config)

    @pytest.fixture
    def stored_texts(self, service: WandbService, served):
        def read() -> dict[str, str]:
            page = service.uploads[served().rows[0]["note"]["path"]].decode()
            return {"note": html.unescape(page.removeprefix("<pre>").removesuffix("</pre>"))}

        return read

    @pytest.fixture
    def stored_tags(self, served):
        return lambda: config_of(served().config, "tracelet/tag/")

    @pytest.fixture
    def outage(self, service: WandbService, backend: WandbBackend):
        @contextlib.contextmanager
        def away() -> Iterator[None]:
            """While the service alone is away, records go to the SDK's file and are taken."""
            kill_core(backend)
            service.refuse = 503
            yield
            service.refuse = None

        return away
