"""From a name of Tracelet's to ClearML's two, and back. Pure functions, for any thread.

A curve of ClearML has a title, which is the plot it stands in, and a series. `train/loss` and `val/loss` become the
series `train` and `val` of the plot `loss`, as ClearML's own callbacks do it, and `loss` the series `loss`.

Guarantee: two names never become one pair, and a pair gives its name back, unless it had to be cut.
"""

from __future__ import annotations

import re
import time
from typing import Final

from tracelet.core.records import MetricData
from tracelet.utils.escaping import NameEscaping

_MARKS: Final = r" ./,;()\[\]+=@#%&*!?<>|~^{}$'"
_MAX_CHARS: Final = 2000  # A keyword of Elasticsearch's has 32,766 bytes at most; a character here up to 12.
# The server knows a point by the text `task-step-title-series`: `a-b`, `c` would be `a`, `b-c`.
_TITLE: Final = NameEscaping(r"\w:" + _MARKS, _MAX_CHARS)
_SERIES: Final = NameEscaping(r"\w:" + _MARKS + "-", _MAX_CHARS)
# Without the colon, which so is free for the properties of our own.
_PARAMETER: Final = NameEscaping(r"\w" + _MARKS + "-", _MAX_CHARS)
_NAMED_TWICE: Final = "_x110001_"  # Beyond Unicode, as `NameEscaping` has one for the empty name.

GENERAL: Final = "General"
PROPERTIES: Final = "properties"  # The section that ClearML shows as a task's user properties.
NAMES: Final = "Tracelet names"  # The section that has the true name of a pair.
_RESERVED: Final = {GENERAL.lower(), PROPERTIES, NAMES.lower()}
_MIN_NAME_CHARS: Final = 3  # The server refuses shorter names of tasks, projects and models.
_SECTION: Final = re.compile(r"(?!.*__)[^\W_][\w .+-]{0,99}(?<!_)\Z")  # The server splits a path at two underscores.


def curve(name: str) -> tuple[str, str]:
    """The title and the series of a name."""
    before, slash, last = name.rpartition("/")
    if not slash:
        return _TITLE.escape(name), _SERIES.escape(name)
    return _TITLE.escape(last), (_NAMED_TWICE if before == last else "") + _SERIES.escape(before)


def name_of_curve(title: str, series: str) -> str | None:
    """The name of a title and a series; None for one that was cut."""
    last, before = _TITLE.unescape(title), _SERIES.unescape(series.removeprefix(_NAMED_TWICE))
    if last is None or before is None:
        return None
    return last if last == before and not series.startswith(_NAMED_TWICE) else f"{before}/{last}"


def parameter(name: str) -> tuple[str, str]:
    """The section and the name of a parameter: what is before the first slash, where that makes a section."""
    section, slash, rest = name.partition("/")
    if slash and _SECTION.match(section) and section.lower() not in _RESERVED:
        return section, _PARAMETER.escape(rest)
    return GENERAL, _PARAMETER.escape(name)


def name_of_parameter(section: str, key: str) -> str | None:
    """The name of a parameter; None for one that was cut."""
    name = _PARAMETER.unescape(key)
    return name if name is None or section == GENERAL else f"{section}/{name}"


def user_property(key: str) -> str:
    """The name of a tag that has a value."""
    return _PARAMETER.escape(key)


def is_plain_curve(name: str) -> bool:
    """Whether a curve is found under its own name."""
    before, _, last = name.rpartition("/")
    return curve(name) == (last, before or last)


def is_plain_parameter(name: str) -> bool:
    """Whether a parameter is found under its own name."""
    return parameter(name) in {(GENERAL, name), tuple(name.split("/", 1))}


def long_enough(name: str) -> str:
    """The name of a task, a project or a model."""
    return name if len(name.strip()) >= _MIN_NAME_CHARS else f"{name} (Tracelet)"


def clean(text: str) -> str:
    """Without lone surrogates, which are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def time_ms(metric: MetricData) -> int:
    """When it was logged; now for a record that does not say."""
    return round((time.time() if metric.timestamp is None else metric.timestamp) * 1000)
