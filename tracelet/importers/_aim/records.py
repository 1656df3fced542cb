"""What a repository of Aim holds of a run. Called on the thread that imports."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

from tracelet.core.importer import Item, Omitted
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.importers._aim.facts import AimFacts
from tracelet.importers._aim.sequences import AimSequence, sequences_of
from tracelet.importers._aim.store import AimObject, Store, key_of
from tracelet.importers.files import inside
from tracelet.utils.values import flatten

_MACHINE: Final = "__system_params"
_UNREADABLE: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, struct.error, UsageError
)  # fmt: skip


@final
class AimRun:
    """One run.

    Args:
        home: The repository, `.aim`.
        facts: What its database says of the run.
        places: The directories that artifacts may be read from.
    """

    def __init__(self, home: Path, facts: AimFacts, places: Sequence[Path]) -> None:
        self._home = home
        self._facts = facts
        self._places = places
        self._run = "meta", "chunks", facts.run_id

    def items(self) -> Iterator[Item]:
        """All that the repository holds of the run."""
        yield from self._given()
        ended_s = self._facts.ended_s
        try:
            meta = self._open("meta")
            ended_s = float(meta.tree(key_of(*self._run, "end_time")) or 0.0) or ended_s
            found = list(sequences_of(meta, self._run))
        except _UNREADABLE as error:
            yield Omitted("the parameters, and all that was logged", f"they can't be read: {error}")
        else:
            yield from _reading("the parameters", self._parameters(meta))
            yield from _reading("the artifacts", self._artifacts(meta))
            yield from _reading("all that was logged", self._logged(found))
        if ended_s is not None:  # Whether it has failed, Aim does not keep.
            yield MetricData(STATUS_NAME, "finished", MetricType.CUSTOM, None, ended_s, metadata={"assumed": True})
        else:
            yield MetricData(STATUS_NAME, "killed", MetricType.CUSTOM, metadata={"assumed": True})
            yield Omitted("the status 'active'", "an imported run is not running; it is shown as killed")

    def _open(self, part: str) -> Store:
        path = inside(self._home, f"{part}/chunks/{self._facts.run_id}")
        if path is None:
            raise ValueError(f"there is no folder {part}/chunks/{self._facts.run_id}")
        return Store(path)

    def _given(self) -> Iterator[Item]:
        for tag in (*self._facts.tags, *(["archived"] if self._facts.is_archived else [])):
            yield MetricData(TAG_PREFIX + tag, "", MetricType.CUSTOM)
        if self._facts.description:
            yield MetricData(DESCRIPTION_NAME, self._facts.description, MetricType.CUSTOM)
        for note in self._facts.notes:
            yield MetricData("notes", note, MetricType.TEXT)

    def _parameters(self, meta: Store) -> Iterator[Item]:
        attributes = meta.tree(key_of(*self._run, "attrs"))
        machine = attributes.pop(_MACHINE, {})
        if kept := {name: machine[name] for name in ("arguments", "executable", "git_info") if machine.get(name)}:
            attributes["system_params"] = kept
        if machine.keys() & {"env_variables", "packages"}:
            yield Omitted("what Aim noted of the machine", "its packages and environment variables are not imported")
        for name, value in flatten(_plain(attributes)):
            yield MetricData(name, value, MetricType.PARAMETER)

    def _artifacts(self, meta: Store) -> Iterator[Item]:
        for name, artifact in meta.tree(key_of(*self._run, "artifacts")).items():
            uri = str(artifact.fields["uri"])
            parts = urlsplit(uri)
            if parts.scheme not in {"", "file"}:
                details = {"type": "custom", "aliases": [], "reference": uri}
                yield MetricData(str(name), uri, MetricType.ARTIFACT, metadata=details)
                continue
            path = next(filter(None, (inside(place, parts.path) for place in self._places)), None)
            if path is not None and path.is_file():
                yield MetricData(str(name), os.fspath(path), MetricType.ARTIFACT)
            else:
                reason = f"it is not in the source, but at {uri!r}: --option files=DIRECTORY allows to read it"
                yield Omitted(f"the file {str(name)!r}", reason)

    def _logged(self, sequences: Sequence[AimSequence]) -> Iterator[Item]:
        if not sequences:
            return
        store = self._open("seqs")
        with tempfile.TemporaryDirectory(prefix="tracelet-import-") as scratch:
            for sequence in sequences:
                yield from _reading(f"the rest of {sequence.name!r}", sequence.items(store, Path(scratch)))


def _reading(what: str, items: Iterator[Item]) -> Iterator[Item]:
    try:
        yield from items
    except _UNREADABLE as error:
        yield Omitted(what, f"it can't be read: {error}")


def _plain(value: Any) -> Any:
    """Without objects of Aim, which a data set's description may be: their fields are as good."""
    match value:
        case AimObject():
            return _plain(value.fields)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
