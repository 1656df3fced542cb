"""`--filter` and `--sort` of `tracelet runs`: small expressions about runs, read by hand. On the main thread.

    status=finished   name~digits   duration>=10m   started>=2026-11-01   step<100
    params.lr>0.01    metric.val/acc>=0.9           tag.team=vision

Guarantee: an expression is compared and never run, and it reads no more of a run than it asks for.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

import typer

from tracelet.cli._render import parameter
from tracelet.journal.load import Run
from tracelet.utils.text import did_you_mean

_ALIASES: Final = {"metrics": "metric", "param": "params", "tags": "tag"}
_EXPRESSION: Final = re.compile(r"(?P<key>.+?)\s*(?P<operator>>=|<=|!=|!~|==|=|>|<|~)\s*(?P<operand>.*)", re.DOTALL)
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@final
class Row:
    """A run, with what costs a reading kept."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @functools.cached_property
    def latest(self) -> dict[str, tuple[int, float]]:
        """As `Run.latest`."""
        return self.run.latest()

    @property
    def last_step(self) -> int | None:
        """As `Run.last_step`."""
        return max((step for step, _ in self.latest.values()), default=None)


_FACTS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "id": lambda row: row.run.id,
    "name": lambda row: row.run.name,
    "project": lambda row: row.run.project,
    "status": lambda row: row.run.status.value,
    "started": lambda row: row.run.created_s,
    "duration": lambda row: row.run.duration_s,
    "step": lambda row: row.last_step,
}
_GROUPS: Final[Mapping[str, Callable[[Row, str], Any]]] = {
    "metric": lambda row, name: row.latest[name][1] if name in row.latest else None,
    "params": lambda row, name: row.run.params.get(name),
    "tag": lambda row, name: row.run.tags.get(name),
}


@final
@dataclass(frozen=True, slots=True)
class Key:
    """Something that can be asked of a run.

    Attributes:
        group: `metric`, `params` or `tag`; empty for a fact of the run itself.
        name: Of the metric, parameter, tag or fact.
    """

    group: str
    name: str

    def value(self, row: Row) -> Any:
        """What it is for this run; None where the run has none."""
        return _GROUPS[self.group](row, self.name) if self.group else _FACTS[self.name](row)


@final
@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison."""

    key: Key
    operator: str
    operand: str | float

    def holds(self, row: Row) -> bool:
        """Whether the run fulfils it. A value that the run does not have is `null`, and neither large nor small."""
        value = self.key.value(row)
        if value is None:
            is_null = str(self.operand).casefold() in ("null", "none")
            return {"=": is_null, "!=": not is_null, "!~": True}.get(self.operator, False)
        text = parameter(value).casefold()
        if self.operator in ("~", "!~"):
            return (str(self.operand).casefold() in text) is (self.operator == "~")
        known, wanted = _number_of(value), _number_of(self.operand)
        if self.operator in ("=", "!="):
            equal = text == str(self.operand).casefold() if known is None or wanted is None else known == wanted
            return equal is (self.operator == "=")
        if known is None or wanted is None:
            return False
        return {"<": known < wanted, "<=": known <= wanted, ">": known > wanted, ">=": known >= wanted}[self.operator]


def parse_condition(text: str) -> Condition:
    """Read one `--filter`.

    Raises:
        BadParameter: It is no such expression.
    """
    found = _EXPRESSION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is no comparison; write it as 'status=finished' or 'metric.val/acc>=0.9'", param_hint="--filter"
        )
    key, operator = _parse_key(found["key"], "--filter"), found["operator"].replace("==", "=")
    operand: str | float = found["operand"]
    if not key.group and key.name in ("started", "duration") and "~" not in operator:
        operand = _time_s(found["operand"], key.name)
    if operator[0] in "<>" and _number_of(operand) is None:
        raise typer.BadParameter(f"{text!r} compares with {operand!r}, which is no number", param_hint="--filter")
    return Condition(key, operator, operand)


def parse_sort(text: str) -> tuple[Key, bool]:
    """Read one `--sort`: the key, and whether the largest comes first.

    Raises:
        BadParameter: There is no such key.
    """
    key, _, direction = text.rpartition(":")
    if direction in ("asc", "desc") and key:
        return _parse_key(key, "--sort"), direction == "desc"
    return _parse_key(text, "--sort"), False


def sort_place(key: Key, row: Row, *, descending: bool) -> tuple[int, float, str]:
    """What a run is sorted by, from small to large: numbers, then texts, then what is missing or NaN."""
    value = key.value(row)
    known = _number_of(value)
    if value is None or (known is not None and math.isnan(known)):
        return (-1 if descending else 2, 0.0, "")
    return (0, known, "") if known is not None else (1, 0.0, parameter(value).casefold())


def _parse_key(text: str, option: str) -> Key:
    group, dot, name = text.partition(".")
    group = _ALIASES.get(group, group)
    if dot and group in _GROUPS and name:
        return Key(group, name)
    if text in _FACTS:
        return Key("", text)
    known = [*_FACTS, *(f"{group}.NAME" for group in _GROUPS)]
    raise typer.BadParameter(
        f"there is no key {text!r}{did_you_mean(text, known)}; there are {', '.join(known)}", param_hint=option
    )


def _number_of(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _time_s(text: str, name: str) -> float:
    """A duration as `90`, `90s`, `1.5h`; a time as a date or date and time, local."""
    try:
        if name == "duration":
            size = _UNITS_S.get(text[-1:], 0.0)
            return float(text[:-1]) * size if size else float(text)
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        example = "'90s', '10m', '1.5h'" if name == "duration" else "'2026-11-01', '2026-11-01 18:30'"
        message = f"{name} can't be compared with {text!r}, but with {example}"
        raise typer.BadParameter(message, param_hint="--filter") from None
