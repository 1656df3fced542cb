"""What every importer must do. Inherit, give the fixtures `importer` and `source`, and pytest runs it all.

Run by pytest. The importer is only read from: what it yields is written by Tracelet, into an empty directory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tracelet.core.importer import ImporterPlugin, Item, Omitted, Points, SourceRun
from tracelet.core.plugins import PluginBase, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import SettingsError, UsageError
from tracelet.importers.writing import Imported, import_run
from tracelet.journal.load import Run
from tracelet.settings import TraceletSettings
from tracelet.testing.plugin_contract import PluginContract


class ImporterContract(PluginContract):
    """Give the fixtures `importer` and `source`, and `config` where it needs settings to work here."""

    kind = PluginType.IMPORTER

    @pytest.fixture
    def importer(self) -> ImporterPlugin:
        """A new importer of which nothing has been called."""
        pytest.fail("give the fixture `importer`")

    @pytest.fixture
    def source(self) -> str:
        """A path or address with at least one run, that the tracker itself wrote."""
        pytest.fail("give the fixture `source`")

    @pytest.fixture
    def plugin(self, importer: ImporterPlugin) -> PluginBase:
        """The importer."""
        return importer

    @pytest.fixture
    def runs(self, importer: ImporterPlugin, config: dict[str, Any], source: str) -> list[SourceRun]:
        """What the source holds."""
        importer.initialize(config)
        return list(importer.runs(source))

    @pytest.fixture
    def items(self, importer: ImporterPlugin, config: dict[str, Any], source: str) -> list[list[Item]]:
        """What each run holds."""
        importer.initialize(config)
        return [list(run.records()) for run in importer.runs(source)]

    def test_source_has_runs_with_keys_of_their_own(self, runs: Sequence[SourceRun]) -> None:
        """A key says which run it is, for good."""
        keys = [run.key for run in runs]
        assert keys
        assert len(keys) == len(set(keys))
        assert all(run.key and run.name for run in runs)

    def test_reading_again_gives_the_same_keys(
        self, importer: ImporterPlugin, runs: Sequence[SourceRun], source: str
    ) -> None:
        """So that a second import knows the run."""
        assert [run.key for run in importer.runs(source)] == [run.key for run in runs]

    def test_items_are_of_the_known_kinds(self, items: Sequence[Sequence[Item]]) -> None:
        """Points in columns of one length, records, and what is left out with its reason."""
        for item in (item for run in items for item in run):
            assert isinstance(item, (Points, MetricData, Omitted))
            if isinstance(item, Points):
                lengths = {len(item.places), len(item.steps), len(item.values), len(item.times_ns)}
                assert len(lengths) == 1
                assert item.type in (MetricType.SCALAR, MetricType.SYSTEM)
                assert not len(item.places) or max(item.places) < len(item.names)
                assert not len(item.times_ns) or min(item.times_ns) > 0
            elif isinstance(item, MetricData):
                assert item.type not in (MetricType.SCALAR, MetricType.SYSTEM)
            else:
                assert item.what
                assert item.reason

    def test_second_import_adds_nothing(
        self, importer: ImporterPlugin, config: dict[str, Any], source: str, tmp_path: Path
    ) -> None:
        """And the first one brought something."""
        first, second = (self._import(importer, config, source, tmp_path / "runs") for _ in range(2))
        assert all(result.points + result.records for result in first)
        assert [(result.points, result.records) for result in second] == [(0, 0)] * len(first)
        assert all(Run(result.path).ended_s is not None for result in second)

    def test_source_stays_as_it_is(
        self, importer: ImporterPlugin, config: dict[str, Any], source: str, tmp_path: Path
    ) -> None:
        """Of a source that is a path: its files."""
        before = _digests(Path(source))
        self._import(importer, config, source, tmp_path / "runs")
        assert _digests(Path(source)) == before

    def test_source_without_runs_is_refused(
        self, importer: ImporterPlugin, config: dict[str, Any], tmp_path: Path
    ) -> None:
        """With what to give instead: an empty directory, and a path where nothing is."""
        importer.initialize(config)
        for place in (tmp_path, tmp_path / "missing"):
            with pytest.raises(UsageError):
                list(importer.runs(str(place)))

    def test_unknown_option_is_refused(self, importer: ImporterPlugin) -> None:
        """A misspelt one would do nothing."""
        with pytest.raises(SettingsError):
            type(importer).validate_config({"no such option": "1"})

    def _import(self, importer: ImporterPlugin, config: dict[str, Any], source: str, root: Path) -> list[Imported]:
        importer.initialize(config)
        kind, settings = importer.get_metadata().name, TraceletSettings.load()
        return [import_run(run, kind, root, None, settings) for run in importer.runs(source)]


def _digests(root: Path) -> dict[str, str]:
    files = [root] if root.is_file() else root.rglob("*")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
