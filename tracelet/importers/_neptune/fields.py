"""What Neptune's fields mean, the same in offline folders and exported files. On the thread that imports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tracelet.core.importer import Item
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME, TAG_PREFIX, MetricData, MetricType

NAME: Final = "sys/name"
_TAGS: Final = ("sys/tags", "sys/group_tags")
MONITORING: Final = "monitoring/"
"""Series below it are of Neptune's own monitor."""


def single(path: str, value: Any, time_s: float | None) -> Iterator[Item]:
    """A field of one value."""
    if path == "sys/description":
        yield MetricData(DESCRIPTION_NAME, value, MetricType.CUSTOM, None, time_s)
    elif path == "sys/failed":
        status = "failed" if value else "finished"
        yield MetricData(STATUS_NAME, status, MetricType.CUSTOM)
    elif path != NAME:
        yield MetricData(path, value, MetricType.PARAMETER, None, time_s)


def words(path: str, values: Iterable[str]) -> Iterator[Item]:
    """A field that is a set of words."""
    if path in _TAGS:
        for word in sorted(values):
            yield MetricData(TAG_PREFIX + word, "", MetricType.CUSTOM)
    else:
        yield MetricData(path, sorted(values), MetricType.PARAMETER)


def kind_of(path: str) -> MetricType:
    """The type of a series of numbers."""
    return MetricType.SYSTEM if path.startswith(MONITORING) else MetricType.SCALAR
