"""Tensors and histograms of TensorBoard's events. Called on the thread that imports. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from tracelet.importers.protobuf import doubles, fields, message, signed, varint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DTYPES: Final = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2", 22: "<u4"}
_VALUES: Final = {5: "<f4", 6: "<f8", 7: "", 10: "", 11: ""}  # Lists by kind; "" is one of varints.


@final
class Tensor:
    """A `TensorProto`.

    Attributes:
        shape: Its shape.
        strings: Its elements, if it is one of texts.
    """

    def __init__(self, data: bytes) -> None:
        """Take it apart.

        Raises:
            ValueError: It is damaged.
        """
        self.strings: list[bytes] = []
        self.shape: tuple[int, ...] = ()
        self._dtype = 0
        self._content = b""
        self._lists: list[tuple[int, bytes | int]] = []
        for number, value in fields(data):
            match number:
                case 1:
                    self._dtype = signed(value)
                case 2:
                    dims = [message(dim) for inner, dim in fields(message(value)) if inner == 2]
                    self.shape = tuple(signed(dict(fields(dim)).get(1, 0)) for dim in dims)
                case 4:
                    self._content = message(value)
                case 8:
                    self.strings.append(message(value))
                case _ if number in _VALUES:
                    self._lists.append((number, value))

    def numbers(self) -> NDArray[np.float64]:
        """Its elements as float64, in its shape.

        Raises:
            ValueError: It has none, or of a type that is no number.
        """
        import numpy as np

        if self._content:
            if self._dtype not in _DTYPES:
                raise ValueError(f"a tensor of the type {self._dtype}")
            return np.frombuffer(self._content, _DTYPES[self._dtype]).astype(np.float64).reshape(self.shape)
        found: list[float] = []
        for number, value in self._lists:
            if isinstance(value, int):
                found.append(signed(value))
            elif _VALUES[number]:
                found += np.frombuffer(value, _VALUES[number]).tolist()
            else:
                at = 0
                while at < len(value):
                    one, at = varint(value, at)
                    found.append(signed(one))
        if not found:
            raise ValueError("a tensor without numbers")
        size = int(np.prod(self.shape, dtype=object))
        if len(found) == 1 < size <= 1 << 24:  # How a tensor of one repeated value is kept.
            found *= size
        return np.array(found).reshape(self.shape)


def histogram_of(data: bytes) -> dict[str, Any]:
    """A `HistogramProto` as a histogram of Tracelet's. Its outer bins end at the extremes, not at the largest float."""
    import numpy as np

    parts: dict[int, bytes] = {}
    for number, value in fields(data):
        parts[number] = parts.get(number, b"") + message(value)
    low, high = doubles(parts.get(1, bytes(8)))[0], doubles(parts.get(2, bytes(8)))[0]
    limits, counts = np.array(doubles(parts.get(6, b""))), np.array(doubles(parts.get(7, b"")))
    count = min(len(limits), len(counts))
    lefts = np.concatenate([[low], limits[: count - 1]]) if count else limits
    return bins(np.maximum(lefts, low), np.clip(limits[:count], low, high), counts[:count])


def tensor_histogram(rows: NDArray[np.float64]) -> dict[str, Any]:
    """A histogram as TensorFlow 2 writes it: rows of left edge, right edge, count.

    Raises:
        ValueError: It has another shape.
    """
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise ValueError(f"a histogram of the shape {rows.shape}")
    return bins(rows[:, 0], rows[:, 1], rows[:, 2])


def bins(lefts: NDArray[np.float64], rights: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, Any]:
    """Adjacent bins as a histogram, without the empty ones at both ends; all of one width 0 become one bin."""
    import numpy as np

    used = np.flatnonzero(counts)
    if not len(used):
        return {"edges": [0.0, 1.0], "counts": [0.0], "nan": 0, "inf": 0}
    kept = slice(used[0], used[-1] + 1)
    edges, counts = np.append(lefts[kept], rights[kept][-1]), counts[kept]
    if not (np.isfinite(edges).all() and (edges[1:] > edges[:-1]).all()):
        low = float(edges[0])
        high = float(edges[-1])
        edges = np.array([low, high if high > low else np.nextafter(low, np.inf)])
        counts = counts.sum(keepdims=True)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "nan": 0, "inf": 0}
