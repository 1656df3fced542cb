"""`tracelet import mlflow URI`: a server or database, by MLflow's client; or the folder of an old file store.

Called on the thread that imports. The client is made for the address alone: MLflow's own state is not changed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, final

from tracelet.core.importer import ImporterPlugin, Item, Omitted, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.importers._mlflow import end_of, facts_of, is_file_store, seconds, stored_runs
from tracelet.importers.rows import Rows
from tracelet.utils.imports import require

_PAGE: Final = 1000
_FEATURE: Final = "Importing from MLflow"
_TIMEOUT_S: Final = 60.0  # Of the first question to a server, which may only just wake up.
_BARS: Final = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@final
class MLflowImporter(ImporterPlugin):
    """Each run that is not deleted, known by its run id; its experiment becomes the project."""

    options: ClassVar[Mapping[str, str]] = {"experiment": "Only this experiment, by its name or id."}

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata(
            "mlflow", "1.0.0", PluginType.IMPORTER, "MLflow's servers, databases, folders", "Tracelet"
        )

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        wanted = self._config.get("experiment")
        path = Path(source.removeprefix("file://")).expanduser()
        if is_file_store(path):
            runs = stored_runs(path, wanted)
        elif "://" in source:
            runs = self._served(source, wanted)
        else:
            raise UsageError(
                f"{source!r} is neither a folder of MLflow's file store (with meta.yaml files) nor an address such as "
                "http://localhost:5000 or sqlite:///mlflow.db"
            )
        found = False
        for run in runs:
            found = True
            yield run
        if not found:
            told = "" if wanted is None else f" in the experiment {wanted!r}"
            raise UsageError(f"there are no runs{told} at {source!r}")

    def _served(self, address: str, wanted: str | None) -> Iterator[SourceRun]:
        if address.startswith("sqlite:///") and not os.path.exists(address.removeprefix("sqlite:///")):
            raise UsageError(f"there is no database at {address!r}")  # MLflow would make one.
        mlflow = require("mlflow", _FEATURE)
        client = mlflow.MlflowClient(tracking_uri=address)
        try:
            if address.startswith(("http://", "https://")):
                _reach(address)
            for experiment in _pages(client.search_experiments):
                if wanted in (None, experiment.name, experiment.experiment_id):
                    for run in _pages(client.search_runs, [experiment.experiment_id], order_by=["start_time"]):
                        facts = run.info
                        reader = _ServedRun(client, run)
                        yield SourceRun(facts.run_id, facts.run_name or facts.run_id, reader.items, experiment.name,
                                        seconds(facts.start_time))  # fmt: skip
        except mlflow.exceptions.MlflowException as error:
            raise UsageError(f"MLflow at {address!r} does not answer as it should: {error}") from error


@final
class _ServedRun:
    """One run of a server or database."""

    def __init__(self, client: Any, run: Any) -> None:
        self._client = client
        self._run = run

    def items(self) -> Iterator[Item]:
        """All that the run holds."""
        run_id, data = self._run.info.run_id, self._run.data
        for name, value in data.params.items():
            yield MetricData(name, value, MetricType.PARAMETER)
        yield from facts_of(data.tags)
        for name in sorted(data.metrics):
            rows = Rows()
            for point in self._client.get_metric_history(run_id, name):
                rows.add(name, point.step, point.value, point.timestamp / 1e3)
            yield rows.take()
        with tempfile.TemporaryDirectory(prefix="tracelet-import-") as scratch:
            yield from self._artifacts(Path(scratch), None)
        yield from end_of(self._run.info.status, self._run.info.end_time)

    def _artifacts(self, scratch: Path, folder: str | None) -> Iterator[Item]:
        run_id = self._run.info.run_id
        try:
            for entry in sorted(self._client.list_artifacts(run_id, folder), key=lambda entry: str(entry.path)):
                if entry.is_dir:
                    yield from self._artifacts(scratch, entry.path)
                    continue
                with _no_bars():
                    path = self._client.download_artifacts(run_id, entry.path, os.fspath(scratch))
                yield MetricData(entry.path, path, MetricType.ARTIFACT)
                if Path(path).is_relative_to(scratch):
                    os.unlink(path)
        except Exception as error:  # noqa: BLE001 - the SDK of a storage may raise anything
            yield Omitted(f"the artifacts in {folder or 'the run'}", f"{type(error).__name__}: {error}")


def _reach(address: str) -> None:
    """Ask a server once: MLflow's client would try for minutes at an address where nobody is.

    Raises:
        MlflowException: It does not answer.
    """
    credentials = require("mlflow.utils.credentials", _FEATURE).get_default_host_creds(address)
    request = require("mlflow.utils.rest_utils", _FEATURE).http_request
    request(credentials, "/version", "GET", max_retries=0, timeout=_TIMEOUT_S, raise_on_status=False)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """MLflow draws a bar for each file, unless its variable says no."""
    told = os.environ.get(_BARS)
    os.environ.setdefault(_BARS, "false")
    try:
        yield
    finally:
        if told is None:
            del os.environ[_BARS]


def _pages(search: Any, *arguments: Any, **more: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, max_results=_PAGE, page_token=token, **more)
        yield from page
        if not (token := page.token):
            return
