"""From whatever a user logs to what the journal can hold.

Called on any thread, by every log call, with whatever the user gave. Pure functions. The guarantee: nothing here raises
because of a value, waits for a device longer than that value's own `.item()`, imports a framework, or takes more time
and memory than a few million characters need. The one exception: what a foreign value's own code costs, is its own.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, TypeVar, final

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
EXACT_INT_LIMIT: Final = 2**53
"""From here on a float can't hold every integer; the exact text goes to the record's metadata."""

MAX_TEXT_CHARS: Final = 1 << 20
"""A parameter's or a strange value's text is cut here; the cut is marked."""

MAX_NESTED_CHARS: Final = 1 << 22
"""A nested value is cut at about this size; the cut is marked by `CUT`."""

NODE_CHARS: Final = 16
"""What each part of a nested value counts at least, so that time is bounded as well: 262,144 parts."""

CUT: Final = "… the rest is left out"
"""Stands among the items of a list, or under the key `…` of a dict, where a nested value is cut."""

_MAX_DEPTH: Final = 20
_MAX_ELEMENTS: Final = 1000  # To print more may take for ever: NumPy's own limit can be set to infinity.
_MAX_DIGITS_BITS: Final = 14_000  # Python refuses to write more than 4,300 digits, which takes quadratic time.

_SEQUENCES: Final = (list, tuple, set, frozenset, range, deque)

_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that became a float.

    Attributes:
        value: NaN and infinities as they are.
        exact: The text of an integer that a float can't hold, or of a value that only stands for none; else None.
    """

    value: float
    exact: str | None = None


def as_scalar(value: Any) -> Scalar | None:
    """The value as a float, or None where it is none: a text, a vector, a complex number, a date, something else.

    Numbers, booleans, and anything of one element with `__float__` or `.item()`: numpy, torch, JAX, bfloat16, 0-d or
    size 1. An integer beyond 2**53 keeps its text; one beyond 10**308 becomes infinite. None and a masked element
    become NaN.
    """
    try:
        number = _number(value)
        if number is None:
            return Scalar(math.nan, as_text(value))
        return _integer(int(number)) if isinstance(number, int) else Scalar(float(number))
    except Exception:  # noqa: BLE001 - it is no number, or its own code failed; the caller records its text instead
        return None


def as_step(step: Any) -> tuple[int | None, str | None]:
    """A step as an integer of 64 bits, and the text of what was given where that is not the same.

    Returns:
        (None, None) for None, (None, text) for what is no finite number. A fraction loses what is after the point; an
        integer beyond 64 bits becomes the nearest one within.
    """
    if step is None:
        return None, None
    try:
        number = _number(step)
        if number is None or (isinstance(number, float) and not math.isfinite(number)):
            return None, as_text(step)
        inside = int(min(max(number, INT64_MIN), INT64_MAX))
        return inside, None if inside == number else as_text(number)
    except Exception:  # noqa: BLE001 - as above
        return None, as_text(step)


def bounded(number: int) -> int:
    """The nearest number that 64 bits hold."""
    return min(max(number, INT64_MIN), INT64_MAX)


def as_text(value: Any) -> str:
    """A text for anything, cut at `MAX_TEXT_CHARS`: its `str`, or that of its `json_like` if it is a huge container."""
    return _Walk().text(value)


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """The fields of what is made of named fields; None for anything else.

    Knows mappings, OmegaConf, `argparse.Namespace`, `SimpleNamespace`, dataclasses and pydantic models.
    """
    fields: Mapping[Any, Any] | None = None
    with suppress(Exception):  # A foreign value's own code may fail; then its text is recorded instead.
        value = _opened(value)
        if isinstance(value, Mapping):
            fields = value
        elif isinstance(value, SimpleNamespace) or is_a(value, "argparse", "Namespace"):
            fields = vars(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        elif is_a(value, "pydantic.main", "BaseModel"):
            fields = value.model_dump(warnings=False)
    return fields


def flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested parameters, each as `json_like` makes it, with their names joined by `/`.

    Takes what `as_mapping` takes. All together are bounded as one `json_like` is; a cut adds a leaf named `…`.
    """
    return _Walk().leaves(values, prefix, ())


def json_like(value: Any) -> Any:
    """The value as JSON can hold it, NaN and infinities apart: numbers and texts as they are, the rest as its text.

    Lists, tuples and sets become lists, and what `as_mapping` takes a dict with texts as keys. An array of one element
    becomes its number. A container inside itself becomes `<cycle>`. See `MAX_NESTED_CHARS` and `CUT` for large ones.
    """
    return _Walk().tree(value, ())


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether the value is of a class whose module may not be installed: where it is not loaded, nothing is."""
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


@final
class _Walk:
    """One walk over one nested value; `room` goes down with whatever it makes, and it ends where none is left."""

    def __init__(self) -> None:
        self.room = MAX_NESTED_CHARS
        self.is_whole = True

    def tree(self, value: Any, parents: tuple[int, ...]) -> Any:
        """As `json_like`. `parents` has the ids of the containers around the value."""
        self.room -= NODE_CHARS
        try:
            return self._tree(value, parents)
        except Exception as error:  # noqa: BLE001 - a foreign value's own code failed, and the text says so
            return _failure(value, error)

    def _tree(self, value: Any, parents: tuple[int, ...]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self.tree(value.value, parents)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, int):
            return int(value) if abs(value) <= INT64_MAX else self.text(int(value))
        if isinstance(value, (str, os.PathLike)):
            return self.text(os.fsdecode(value) if isinstance(value, os.PathLike) else value)
        return self._container(value, parents)

    def _container(self, value: Any, parents: tuple[int, ...]) -> Any:
        if id(value) in parents:
            return self._left_out("<cycle>")
        items = _items(value)
        fields = as_mapping(value) if items is None else None
        if fields is None and items is None:
            return self._single(value, parents)
        if len(parents) >= _MAX_DEPTH:
            return self._too_deep(value)
        parents = (*parents, id(value))
        if items is not None:
            made = [self.tree(item, parents) for item in self._within(items, CUT)]
            return sorted(made, key=str) if isinstance(items, (set, frozenset)) else made
        named = {self.text(key): self.tree(item, parents) for key, item in self._within(_pairs(fields), ("…", CUT))}
        # The line log writes NaN as a dict of this one key, and would read it back as a number.
        return named if named.keys() != {"__float__"} else {"_float_": named["__float__"]}

    def _single(self, value: Any, parents: tuple[int, ...]) -> Any:
        number = None
        with suppress(Exception):  # It is no number, or its own code failed.
            number = _number(value)
        return self.text(value) if number is None else self.tree(number, parents)

    def leaves(self, value: Any, name: str, parents: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """As `flatten`."""
        self.room -= len(name)
        fields = as_mapping(value)
        if fields is None or id(value) in parents:
            yield name, self.tree(value, parents)
        elif len(parents) >= _MAX_DEPTH:
            yield name, self._too_deep(value)
        else:
            is_empty = True
            for key, item in self._within(_pairs(fields), ("…", CUT)):
                is_empty = False
                inner = self.text(key)
                yield from self.leaves(item, f"{name}/{inner}" if name else inner, (*parents, id(value)))
            if is_empty and parents:
                yield name, {}

    def text(self, value: Any) -> str:
        """As `as_text`."""
        try:
            text = str.__str__(self._text(value))  # A subclass's other methods may do anything.
            if len(text) > MAX_TEXT_CHARS:
                self.is_whole = False
            text = _short(text)
        except Exception as error:  # noqa: BLE001 - a foreign value's own code failed, and the text says so
            text = _failure(value, error)
        self.room -= len(text)
        return text

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if type(value) is int:
            return _digits(value)
        if isinstance(value, (bytes, bytearray)) and len(value) > MAX_TEXT_CHARS // 4:
            return f"<{_class_name(value)} of {len(value)} bytes>"
        if _items(value) is not None or as_mapping(value) is not None:
            walk = _Walk()
            made = walk.tree(value, ())
            return str(value if walk.is_whole else made)  # Of what is not, `str` would have no bound.
        shape = _shape(value)
        return f"<{_class_name(value)} of shape {shape}>" if math.prod(shape) > _MAX_ELEMENTS else str(value)

    def _within(self, items: Iterable[_T], end: _T) -> Iterator[_T]:
        """The items while there is room and iteration works. `end` comes last where some are left out."""
        with suppress(Exception):  # A foreign container may fail, and another thread may change any.
            for item in items:
                if self.room <= 0:
                    break
                yield item
            else:
                return
        yield self._left_out(end)

    def _too_deep(self, value: Any) -> str:
        return self._left_out(f"<{_class_name(value)} below {_MAX_DEPTH} levels>")

    def _left_out(self, mark: _T) -> _T:
        self.is_whole = False
        return mark


def _number(value: Any) -> int | float | None:
    """The one number that a value is; None where it stands for none. Raises TypeError, or anything, for others.

    What a value can do is asked with `getattr`: a runtime-checkable Protocol takes ten times as long, 15 µs a value.
    """
    if value is None or isinstance(value, (float, int)):
        return value
    shape = getattr(value, "shape", None)
    if shape is not None:
        # Of a date or a duration, `item` makes a number of nanoseconds; of a masked element, what is under the mask.
        if math.prod(shape) != 1 or getattr(getattr(value, "dtype", None), "kind", None) in ("M", "m"):
            raise TypeError
        if is_a(value, "numpy.ma", "MaskedArray") and sys.modules["numpy.ma"].is_masked(value):
            return None
    item = getattr(value, "item", None)
    if item is not None:
        value = item()  # NumPy warns of `float(array)`.
        if value is None or isinstance(value, (float, int)):
            return value
    if isinstance(value, (str, bytes, bytearray)):  # Which `float` would read.
        raise TypeError
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _integer(value: int) -> Scalar:
    exact = None if -EXACT_INT_LIMIT <= value <= EXACT_INT_LIMIT else _digits(value)
    try:
        return Scalar(float(value), exact)
    except OverflowError:
        return Scalar(math.inf if value > 0 else -math.inf, exact)


def _digits(value: int) -> str:
    return _short(str(value) if value.bit_length() <= _MAX_DIGITS_BITS else hex(value))


def _short(text: str) -> str:
    if len(text) > MAX_TEXT_CHARS:
        text = f"{text[: MAX_TEXT_CHARS - 40]}… ({len(text)} characters)"  # Within the limit: not to be cut again.
    # JSON can't tell two surrogates from the character that they make, so they become that one here.
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _opened(value: Any) -> Any:
    """An OmegaConf container as a dict or list of its resolved members; anything else as it is."""
    if not is_a(value, "omegaconf", "Container"):
        return value
    raw = sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=False)
    if isinstance(raw, dict):
        return {key: _resolved(value, key, item) for key, item in raw.items()}
    return [_resolved(value, index, item) for index, item in enumerate(raw)] if isinstance(raw, list) else raw


def _resolved(container: Any, key: Any, raw: Any) -> Any:
    with suppress(Exception):  # A missing value, or an interpolation that leads nowhere, stays as it is written.
        return container[key]
    return raw


def _items(value: Any) -> Iterable[Any] | None:
    if not isinstance(value, _SEQUENCES):
        value = _opened(value)
    return value if isinstance(value, _SEQUENCES) else None


def _pairs(fields: Mapping[Any, Any] | None) -> Iterator[tuple[Any, Any]]:
    # A generator, so that a failure of `items` itself comes where one of its iteration would.
    yield from () if fields is None else fields.items()


def _shape(value: Any) -> tuple[int, ...]:
    with suppress(Exception):  # Some kinds of tensor have no shape, but a text.
        return tuple(getattr(value, "shape", ()))
    return ()


def _failure(value: Any, error: Exception) -> str:
    return f"<{_class_name(value)} whose text failed: {_class_name(error)}>"


def _class_name(value: Any) -> str:
    name: str = type.__dict__["__name__"].__get__(type(value))  # A metaclass may hide `__name__`.
    return name
