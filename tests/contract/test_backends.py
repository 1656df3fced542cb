"""The backends that come with Tracelet, under the suite that any author of a backend can run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tracelet.backends.jsonl_backend import JsonLinesBackend
from tracelet.core.records import TAG_PREFIX, MetricData, MetricType
from tracelet.testing import BackendContract, MemoryBackend

NUMBERS = (MetricType.SCALAR, MetricType.SYSTEM)


class TestJsonLinesBackend(BackendContract):
    subject = JsonLinesBackend

    @pytest.fixture
    def backend(self):
        return JsonLinesBackend()

    @pytest.fixture
    def config(self, tmp_path: Path):
        return {"path": str(tmp_path / "lines" / "all.jsonl")}

    @pytest.fixture
    def lines(self, config: dict[str, Any]):
        def read() -> list[dict[str, Any]]:
            text = Path(config["path"]).read_text("ascii")
            return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]

        return read

    @pytest.fixture
    def stored(self, lines):
        return lambda: [
            (line["name"], line["step"], float(line["value"]), line["time_s"])
            for line in lines()
            if MetricType(line["type"]) in NUMBERS
        ]

    @pytest.fixture
    def stored_params(self, lines):
        return lambda: {line["name"]: line["value"] for line in lines() if line["type"] == "parameter"}

    @pytest.fixture
    def stored_texts(self, lines):
        return lambda: {line["name"]: line["value"] for line in lines() if line["type"] == "text"}

    @pytest.fixture
    def stored_tags(self, lines):
        return lambda: {line["name"].removeprefix(TAG_PREFIX): line["value"] for line in lines()}

    @pytest.fixture
    def outage(self, config: dict[str, Any]):
        folder, moved = Path(config["path"]).parent, Path(config["path"]).parent.with_name("moved")

        @contextlib.contextmanager
        def unreachable() -> Iterator[None]:
            if folder.exists():
                folder.rename(moved)
            folder.write_text("a file where the folder should be")
            yield
            folder.unlink()
            if moved.exists():
                moved.rename(folder)

        return unreachable


class TestMemoryBackend(BackendContract):
    subject = MemoryBackend

    @pytest.fixture
    def backend(self):
        return MemoryBackend()

    @pytest.fixture
    def restarted(self, backend: MemoryBackend):
        return backend

    @pytest.fixture
    def stored(self, backend: MemoryBackend):
        return lambda: [
            (record.name, record.iteration, record.value, record.timestamp)
            for record in backend.records
            if record.type in NUMBERS
        ]

    @pytest.fixture
    def stored_params(self, backend: MemoryBackend):
        return lambda: self.named(backend, MetricType.PARAMETER)

    @pytest.fixture
    def stored_texts(self, backend: MemoryBackend):
        return lambda: self.named(backend, MetricType.TEXT)

    @pytest.fixture
    def stored_tags(self, backend: MemoryBackend):
        custom = MetricType.CUSTOM
        return lambda: {name.removeprefix(TAG_PREFIX): value for name, value in self.named(backend, custom).items()}

    @staticmethod
    def named(backend: MemoryBackend, kind: MetricType) -> dict[str, Any]:
        return {record.name: record.value for record in backend.records if record.type is kind}

    @pytest.fixture
    def outage(self, backend: MemoryBackend):
        @contextlib.contextmanager
        def unreachable() -> Iterator[None]:
            for method in ("initialize", "start", "handle"):
                backend.fail(ConnectionError("no route to the service"), at=method)
            yield
            backend.recover()

        return unreachable


# -- what only the file has --------------------------------------------------------------------------------------------


@pytest.fixture
def jsonl(tmp_path: Path) -> JsonLinesBackend:
    backend = JsonLinesBackend()
    backend.initialize({"state_dir": tmp_path, "run_id": "run1"})
    backend.start()
    return backend


def test_jsonl_writes_valid_json_for_numbers_that_json_lacks(jsonl: JsonLinesBackend, tmp_path: Path):
    inf, nan = float("inf"), float("nan")
    jsonl.handle_metric(MetricData("p", {"a": [inf, -inf, 1.5]}, MetricType.PARAMETER, metadata={"b": nan}))
    line = json.loads((tmp_path / "records.jsonl").read_text(), parse_constant=pytest.fail)
    assert ({"a": ["inf", "-inf", 1.5]}, {"b": "nan"}) == (line["value"], line["metadata"])


def test_jsonl_goes_on_after_a_line_that_was_cut_short(jsonl: JsonLinesBackend, tmp_path: Path):
    (tmp_path / "records.jsonl").write_text('{"name": "a"}\n{"name": "b", "val')
    jsonl.handle_metric(MetricData("b", 1.0, MetricType.SCALAR))
    jsonl.handle_metric(MetricData("c", 1.0, MetricType.SCALAR))
    *_, torn, after, last = (tmp_path / "records.jsonl").read_text().splitlines()
    assert ('{"name": "b", "val', "b", "c") == (torn, json.loads(after)["name"], json.loads(last)["name"])


def test_jsonl_refuses_a_setting_that_it_does_not_have():
    with pytest.raises(ValueError, match="no setting 'pth'; it has 'path'"):
        JsonLinesBackend.validate_config({"pth": "x.jsonl"})
    with pytest.raises(ValueError, match="no path: 3"):
        JsonLinesBackend.validate_config({"path": 3})


def test_memory_backend_does_without_pytest(tmp_path: Path):
    import subprocess
    import sys

    code = "import sys; sys.modules['pytest'] = None; from tracelet.testing import MemoryBackend; MemoryBackend()"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
