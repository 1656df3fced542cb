"""What an imported run holds already: how many points of each series, how many records of each name, which facts.

Read from the journal before an import, on the thread that imports; the journal is the only memory, so an import that
was killed at any instant goes on exactly where it came to. The memory does not grow with the number of points.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.records import MetricData, MetricType
from tracelet.journal.directory import own_files
from tracelet.journal.format import decode_records, writer_of_log, writer_of_segment
from tracelet.journal.part import SCALARS
from tracelet.journal.reader import WriterReader, read_block

_BLOCK_SLOTS: Final = 65_536
_FACTS: Final = (MetricType.PARAMETER, MetricType.CUSTOM)
_TYPES: Final = {kind.value: kind for kind in MetricType}

Name = tuple[MetricType, str, str | None]


@final
class Holdings:
    """See the module docstring.

    Attributes:
        counts: Points and records, by type, name and part of the source.
        facts: The last value of each parameter, tag and the like.
        last_ns: The latest time of a point, Unix time in nanoseconds; 0 where there is none.
    """

    def __init__(self, directory: Path) -> None:
        """Count.

        Raises:
            OSError, JournalError: The journal can't be read. Nothing may be added then.
        """
        self.counts: Counter[Name] = Counter()
        self.facts: dict[Name, Any] = {}
        self.last_ns = 0
        names = own_files(directory) if os.path.isdir(directory) else []
        for writer in filter(None, map(writer_of_log, names)):
            reader = WriterReader(directory, writer)
            for _, record in reader.lines():
                if record is not None:
                    self._add(record)
            for name in names:
                if (found := writer_of_segment(name)) is not None and found[0] == writer:
                    self._count(directory / name, reader)

    def _add(self, record: MetricData) -> None:
        name = counted_as(record)
        self.counts[name] += 1
        if record.type in _FACTS:
            self.facts[name] = record.value
        elif record.type in SCALARS:
            self.last_ns = max(self.last_ns, round((record.timestamp or 0) * 1e9))

    def _count(self, segment: Path, reader: WriterReader) -> None:
        import numpy as np

        slot = 0
        while (block := read_block(segment, slot, _BLOCK_SLOTS)).slots:
            slot += block.slots
            records, bad = decode_records(block.data)
            whole = np.delete(records, bad)
            if len(whole):
                self.last_ns = max(self.last_ns, int(whole["time_ns"].max()))
            for key, count in enumerate(np.bincount(whole["key"])):
                if count and key in reader.series:
                    name, kind, source = reader.series[key]
                    self.counts[kind, name, source] += int(count)


def counted_as(record: MetricData) -> Name:
    """What a record counts as. If it could not be kept as it was, its type is what it should be."""
    failed = (record.metadata or {}).get("failed")
    source = None if record.type in _FACTS else record.source  # Of a fact the last holds, wherever it is from.
    return _TYPES.get(str(failed), record.type), record.name, source
