"""Metrics of several steps in one array that leaves a compiled function with its results.

    rows[0]     [how many rows were ever written, 0, …]
    rows[1:]    a ring of rows: [step, id of the layout, the numbers as words of 32 bits, …]

`Steps` and `single` are used while a function is traced, or outside of any; `Rows` on the thread that trains, when the
function has returned, and by the resolver. Guarantee: each number keeps its own type, and each row knows its own names;
so the same array takes the metrics of any step function, as `scan` and `cond` need it. The id of a layout is a
checksum: all processes of a program compile the same.
"""

from __future__ import annotations

import itertools
import logging
import math
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from tracelet.core.intake import Points
from tracelet.errors import UsageError
from tracelet.utils.jax_arrays import code_of, is_ready, to_words

logger = logging.getLogger(__name__)

NO_STEP: Final = -(2**31)
"""The step of a row that is told its step by whoever records it."""

_HEAD: Final = 2  # Words of a row before its numbers: step and layout.


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """The size of an array of rows.

    Attributes:
        rows: So many steps of one call are kept, the last ones.
        words: So many words the numbers of one step may have; one each, or two where they have 64 bits.
    """

    rows: int = 128
    words: int = 14


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """The names of a row's numbers, and their types as `struct` names them."""

    names: tuple[str, ...]
    codes: str

    _known: ClassVar[dict[int, Layout]] = {}
    _registering: ClassVar[threading.Lock] = threading.Lock()

    def register(self) -> int:
        """The id under which `of` finds it."""
        first = zlib.crc32(repr((self.names, self.codes)).encode())
        with Layout._registering:
            for index in itertools.count(first):
                if Layout._known.setdefault(index & 0xFFFFFFFF, self) == self:
                    return index & 0xFFFFFFFF
        raise AssertionError  # `count` has no end.

    @classmethod
    def of(cls, index: int) -> Layout:
        """The layout of this id."""
        return cls._known[index]


def flattened(metrics: Mapping[str, Any], prefix: str) -> dict[str, jax.Array]:
    """Numbers with their full names, nested ones joined by `/`.

    Raises:
        UsageError: One of them is no single real number.
    """
    found: dict[str, jax.Array] = {}
    for name, value in metrics.items():
        full = f"{prefix}/{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            found |= flattened(value, full)
            continue
        try:
            number = jnp.asarray(value)
        except TypeError as error:
            raise UsageError(f"the metric {full!r} is no number but {type(value).__name__}: {value!r:.200}") from error
        if number.size != 1 or code_of(number.dtype) is None:
            raise UsageError(
                f"the metric {full!r} is {number.dtype}{list(number.shape)}, and a metric is one real number: take the "
                "mean, or return it from the function and log it outside"
            )
        found[full] = number
    return found


def is_number(value: Any) -> bool:
    """Whether a row can hold it: a real number, or an array of one element."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return value.size == 1 and code_of(value.dtype) is not None
    return isinstance(value, (int, float))


@final
class Steps(NamedTuple):
    """The steps that a state has made within a traced function, as it has come to this point.

    Attributes:
        ring: An array of rows, as `array` makes it, that the state has brought along; None at the beginning.
        fresh: Rows that are not in there.
    """

    ring: Any = None
    fresh: tuple[jax.Array, ...] = ()

    def and_this(self, step: Any, metrics: Mapping[str, jax.Array]) -> Steps:
        """With one step more.

        Args:
            step: What it is recorded under.
            metrics: From `flattened`.
        """
        return Steps(self.ring, (*self.fresh, _row(step, metrics)))

    def array(self, shape: Shape, counter: Any) -> jax.Array:
        """All in one array of uint32, of the shape (*counter's, rows + 1, words), whatever the steps are.

        Args:
            shape: Its size.
            counter: A step counter: the array is where that is, and of a stack of counters (`vmap`) a stack.

        Raises:
            UsageError: A row has no room for the metrics of a step.
        """
        rows = self.ring
        if rows is None:
            zero = (jnp.asarray(counter) * 0).astype(jnp.uint32)[..., None, None]
            rows = jnp.zeros((1 + shape.rows, _HEAD + shape.words), jnp.uint32) + zero
        for row in self.fresh:
            rows = _appended(rows, row)
        return rows  # type: ignore[no-any-return]  # JAX makes trees of whatever it likes.

    def result(self, shape: Shape, counter: Any) -> jax.Array | None:
        """All in one array, as small as it can be; None if there are none."""
        if self.ring is not None or not self.fresh:
            return None if self.ring is None else self.array(shape, counter)
        words = max(len(row) for row in self.fresh)
        rows = [jnp.pad(row, (0, words - len(row))) for row in self.fresh]
        return jnp.stack([jnp.zeros_like(rows[0]).at[0].set(len(rows)), *rows])


def single(step: Any, metrics: Mapping[str, jax.Array]) -> jax.Array:
    """An array of one row."""
    row = _row(step, metrics)
    return jnp.stack([jnp.zeros_like(row).at[0].set(1), row])


def _row(step: Any, metrics: Mapping[str, jax.Array]) -> jax.Array:
    layout = Layout(tuple(metrics), "<" + "".join(str(code_of(number.dtype)) for number in metrics.values()))
    head = [to_words(jnp.asarray(step).astype(jnp.int32)), jnp.full(1, layout.register(), jnp.uint32)]
    return jnp.concatenate([*head, *(to_words(number) for number in metrics.values())])


def _appended(rows: jax.Array, row: jax.Array) -> jax.Array:
    needed, room = len(row) - _HEAD, rows.shape[1] - _HEAD
    if needed > room:
        raise UsageError(
            f"the metrics of one step need {needed} words of 32 bits, and in a scan there is room for {room}: make it "
            f"larger with max_metrics={needed}"
        )
    count = rows[0, 0]
    place = (1 + count % jnp.uint32(rows.shape[0] - 1)).astype(jnp.int32)
    row = jnp.pad(row, (0, room - needed))[None]
    return jax.lax.dynamic_update_slice(rows, row, (place, jnp.int32(0))).at[0, 0].set(count + 1)


@final
class Rows:
    """An array of rows that has left its function: a `Deferred` of the points in it."""

    steps: ClassVar[int] = 0
    """So many have been read in this process."""

    def __init__(self, array: jax.Array | np.ndarray[Any, Any], step: int = NO_STEP) -> None:
        """Take this process's part of an array. Starts nothing.

        Args:
            array: From `Steps` or `single`; from `vmap` and `pmap` with an axis more.
            step: Of the rows that have none.
        """
        if isinstance(array, jax.Array) and len(array.sharding.device_set) > 1:
            # The same on all devices; or each has its own, by `pmap`: then the first one's counts, as `step[0]` does.
            array = array.addressable_data(0)
        self._array = array
        self._step = step
        self.size_bytes = 4 * math.prod(array.shape)

    def is_ready(self) -> bool:
        """As `Deferred`."""
        return not isinstance(self._array, jax.Array) or is_ready(self._array)

    def result(self) -> list[Points]:
        """The points, in the order of their steps."""
        array = np.asarray(self._array)
        if array.ndim == 2:
            return list(_points(array, self._step, ""))
        members = array.reshape(-1, *array.shape[-2:])
        suffixes = [f"/{place}" for place in range(len(members))] if len(members) > 1 else [""]
        pairs = zip(members, suffixes, strict=True)
        return [point for member, suffix in pairs for point in _points(member, self._step, suffix)]


def _points(rows: np.ndarray[Any, Any], own_step: int, suffix: str) -> Iterator[Points]:
    """Those of one array; `suffix` tells the members of an ensemble (`vmap`) apart."""
    kept, words = rows.shape[0] - 1, rows.tobytes()
    (count,) = struct.unpack_from("<I", words)
    if count > kept:
        logger.warning(
            "%d steps were made in one call, and the metrics of the last %d are kept: make it %d with history=%d",
            count, kept, count, count,
        )  # fmt: skip
    for index in range(max(0, count - kept), count):
        start = 4 * rows.shape[1] * (1 + index % kept)
        step, layout_id = struct.unpack_from("<iI", words, start)
        layout = Layout.of(layout_id)
        Rows.steps += 1
        names = [name + suffix for name in layout.names] if suffix else layout.names
        numbers = map(float, struct.unpack_from(layout.codes, words, start + 4 * _HEAD))
        yield own_step if step == NO_STEP else step, dict(zip(names, numbers, strict=True))
