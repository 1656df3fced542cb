"""What a run of Aim has logged, a sequence for each name and context. Called on the thread that imports.

A context, as `{"subset": "val"}`, becomes part of the name: `val/loss`. The numbers of a sequence lie in the order of a
hash of their steps. They are given in the order of their times, as what is logged later then follows; for that, those
of one sequence are in memory at once, some 40 bytes each. All else is read one by one.
"""

from __future__ import annotations

import json
import logging
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted, Points
from tracelet.core.records import MetricData, MetricType
from tracelet.importers._aim.store import AimObject, Store, key_of, path_of, value_of
from tracelet.importers.rows import times_ns
from tracelet.utils.media import histogram

_BLOCK: Final = 65_536
_SYSTEM: Final = "__system__"
_NAMES: Final = {"__log_records": "log"}
_NUMBERS: Final = ("float", "float64", "int", "number")
_LATEST: Final = 2
"""The version of a sequence whose rows are known by the hash of their step; before, by the step."""


def sequences_of(meta: Store, run: tuple[str, ...]) -> Iterator[AimSequence]:
    """What was logged.

    Args:
        meta: What Aim says of the run.
        run: What the paths in it begin with.

    Raises:
        ValueError, struct.error: It can't be read.
    """
    contexts = meta.tree(key_of(*run, "contexts"))
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for rest, raw in meta.leaves(key_of(*run, "traces")):
        match path_of(rest):
            case [int(place), str(name), "dtype" | "version" | "last_step" as fact]:
                found.setdefault((place, name), {})[fact] = value_of(raw)
    for (place, name), facts in found.items():
        version, context = facts.get("version", 1), contexts.get(place, {})
        is_system = name.startswith(_SYSTEM)
        own = _NAMES.get(name, name.removeprefix(_SYSTEM))
        yield AimSequence(
            name="/".join([*(["system"] if is_system else []), *_levels(context), own]),
            source=json.dumps(context) if context else None,
            prefix=key_of("seqs", *(["v2"] if version == _LATEST else []), *run[1:], place, name),
            version=version,
            kind=str(facts.get("dtype", "float")),
            type=MetricType.SYSTEM if is_system else MetricType.SCALAR,
            last_step=int(facts.get("last_step", 0)),
        )


def _levels(context: dict[str, Any]) -> Iterator[str]:
    """A context as levels of a name. `subset` is what Aim's own integrations call the phases of a training."""
    for key in sorted(context, key=lambda key: (key != "subset", str(key))):
        if key != "subset":
            yield str(key)
        yield value if isinstance(value := context[key], str) else json.dumps(value)


@final
@dataclass(frozen=True, slots=True)
class AimSequence:
    """What was logged under one name in one context.

    Attributes:
        name: As Tracelet has it.
        source: The context as JSON; None where it is empty. It keeps apart what comes to have one name.
        prefix: What the keys of it begin with.
        version: See `_LATEST`.
        kind: The type of its values, as Aim names it.
        type: SCALAR or SYSTEM, if they are numbers.
        last_step: The largest. Aim notes it just before the value itself.
    """

    name: str
    source: str | None
    prefix: bytes
    version: int
    kind: str
    type: MetricType
    last_step: int

    def items(self, store: Store, scratch: Path) -> Iterator[Item]:
        """All that was logged.

        Raises:
            ValueError, TypeError, struct.error: It can't be read, or is not as Aim writes it.
        """
        if self.kind == "aim.log_line":
            yield Omitted("the terminal's output", "Aim's console lines are not imported")
            return
        is_series = self.version == _LATEST or self.kind in _NUMBERS
        yield from self._points(store) if is_series else self._values(store, scratch)
        if any(value_of(raw) is not None for _, raw in store.column(self.prefix, "epoch")):
            yield Omitted("the epochs of a sequence", "what Tracelet keeps has a step and a time")

    def _points(self, store: Store) -> Iterator[Item]:
        """All of them or none: where some can't be read, what a part lacks could not be added later."""
        import numpy as np

        times_s, steps, values, fractions = array("d"), array("q"), array("d"), 0
        is_latest = self.version == _LATEST
        for rest, row in store.columns(self.prefix, ("val", "time", "step") if is_latest else ("val", "time")):
            step = row[2] if is_latest else _step(rest)
            values.append(row[0])
            times_s.append(row[1])
            steps.append(int(step))
            fractions += steps[-1] != step
        order = np.lexsort((steps, times_s))
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            yield Points(
                [self.name],
                np.zeros(len(rows), np.intp),
                np.frombuffer(steps, np.int64)[rows],
                np.frombuffer(values)[rows],
                times_ns(np.frombuffer(times_s)[rows]),
                self.type,
                self.source,
            )
        if max(steps, default=-1) < self.last_step:
            yield Omitted(f"the end of {self.name!r}", f"its last step, {self.last_step}, is not in the files")
        if fractions:
            yield Omitted(f"the fractions of {fractions} steps", "a step of Tracelet's is a whole number")

    def _values(self, store: Store, scratch: Path) -> Iterator[Item]:
        """Texts, images and the like, one in memory at a time."""
        for time_s, rest in sorted((float(row[0]), rest) for rest, row in store.columns(self.prefix, ["time"])):
            step, value = _step(rest), store.tree(self.prefix + key_of("val") + rest)
            for name, one in _each(self.name, value):
                for item in _read(name, one, scratch):
                    if isinstance(item, MetricData):
                        yield replace(item, iteration=step, timestamp=time_s, source=self.source)
                    else:
                        yield item


def _step(rest: bytes) -> int:
    match path_of(rest):
        case [int(step)]:
            return step
    raise ValueError(f"{rest!r} is no step")


def _each(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A list of more than one has a name for each."""
    if not isinstance(value, list):
        yield name, value
    elif len(value) == 1:
        yield name, value[0]
    else:
        yield from ((f"{name}/{place}", one) for place, one in enumerate(value))


def _read(name: str, value: Any, scratch: Path) -> Iterator[Item]:
    import numpy as np

    kind, fields = (value.kind, value.fields) if isinstance(value, AimObject) else (type(value).__name__, {})
    match kind:
        case "aim.text":
            yield MetricData(name, fields["data"], MetricType.TEXT)
        case "aim.log_record":
            text = f"{logging.getLevelName(fields['log_level'])}: {fields['message']}"
            yield MetricData(name, text, MetricType.TEXT, metadata=dict(fields.get("extra_args", {})))
        case "aim.image" | "aim.audio":
            details = {"caption": fields["caption"]} if fields.get("caption") else None
            type_ = MetricType.IMAGE if kind == "aim.image" else MetricType.AUDIO
            yield MetricData(name, b"".join([fields["data"]]), type_, metadata=details)  # A text would be a path.
        case "aim.distribution":
            counts = np.frombuffer(fields["data"], fields["dtype"])
            low, high = fields["range"]
            counted = histogram((counts, np.linspace(low, high, len(counts) + 1)))
            yield MetricData(name, counted, MetricType.HISTOGRAM)
        case "aim.figure":
            path = scratch / "figure.plotly.json"
            path.write_text(fields["data"], "utf-8")
            yield MetricData(name, os.fspath(path), MetricType.FIGURE)
            path.unlink()  # It may be linked into the run: the next one is another file.
        case _:
            yield Omitted(f"values of the type {kind!r}", "Tracelet has no such type")
