"""Gathers points one by one and gives them in columns. Used by an importer, on its thread."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.core.importer import Points
from tracelet.core.records import MetricType
from tracelet.importers.protobuf import signed, varint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LIMIT: Final = 65_536
_DOUBLE: Final = struct.Struct("<d")
_FLOAT: Final = struct.Struct("<f")


@final
class Rows:
    """See the module docstring."""

    def __init__(self, kind: MetricType = MetricType.SCALAR, source: str | None = None) -> None:
        self._kind = kind
        self._source = source
        self._steps_by_bytes: dict[bytes, int] = {b"": 0}
        self._begin()

    def _begin(self) -> None:
        self._names: dict[bytes, int] = {}
        self._known: dict[str, int] = {}
        self._places: list[int] = []
        self._steps: list[int] = []
        self._values: list[float] = []
        self._times_s: list[float] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to `take` them."""
        return len(self._places) >= _LIMIT

    def add(self, name: str, step: int, value: float, time_s: float) -> None:
        """Add a point."""
        self._places.append(self._place(name))
        self._steps.append(step)
        self._values.append(value)
        self._times_s.append(time_s)

    def add_bytes(self, name: bytes, step: bytes, value: bytes, time_s: bytes) -> None:
        """The same as protocol buffers have it: a varint, a float32, a float64."""
        names, steps = self._names, self._steps_by_bytes
        place = names.get(name)
        if place is None:
            place = names[name] = self._place(name.decode("utf-8", "replace"))
        number = steps.get(step)
        if number is None:
            if len(steps) >= _LIMIT:
                steps.clear()
                steps[b""] = 0
            number = steps[step] = signed(varint(step, 0)[0])
        self._places.append(place)
        self._steps.append(number)
        self._values.append(_FLOAT.unpack(value)[0])
        self._times_s.append(_DOUBLE.unpack(time_s)[0])

    def _place(self, name: str) -> int:
        return self._known.setdefault(name, len(self._known))

    def take(self) -> Points:
        """The points that have been added since the last call."""
        import numpy as np

        places, steps = np.array(self._places, np.intp), np.array(self._steps, np.int64)
        values = np.array(self._values, np.float64)
        points = Points(list(self._known), places, steps, values, times_ns(self._times_s), self._kind, self._source)
        self._begin()
        return points


def times_ns(times_s: Any) -> NDArray[np.int64]:
    """Unix time in nanoseconds, of seconds; what is no time becomes the first nanosecond of 1970."""
    import numpy as np

    seconds = np.nan_to_num(np.asarray(times_s, np.float64), nan=0.0)
    return np.clip(np.rint(seconds * 1e9), 1, 2.0**63 - 1024).astype(np.int64)
