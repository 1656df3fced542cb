"""From arrays, images, figures, sounds, films and tables to what a run directory keeps.

Called on the thread that logs, by the `log_image`, `log_table`, … of an experiment. Pure functions, which import NumPy
and Pillow only when they need them. The guarantee: what can't be encoded raises `UsageError` with what was given and
what is accepted, a missing package `MissingDependencyError`, and nothing else is raised.
"""

from __future__ import annotations

import io
import math
import numbers
import re
import sys
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol, final, runtime_checkable

from tracelet.errors import UsageError
from tracelet.utils.imports import require
from tracelet.utils.values import CUT, as_mapping, as_text, is_a, json_like

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ROWS: Final = 10_000
"""A table is cut here, or where `json_like` cuts it; `rows_total` then says how many rows there were."""

MAX_COLUMNS: Final = 10_000
_MAX_BINS: Final = 10_000
_MIN_FRAME_CS: Final = 2  # Browsers play a GIF frame of less than 2 hundredths of a second for 10.
_IMAGES: Final = "bytes of PNG, JPEG, GIF, WebP or SVG"
_SOUNDS: Final = "bytes of WAV, MP3, Ogg or FLAC"
_COLOUR: Final = ((3, (3,)), (3, (4,)))  # Dimensions, and the last of them.
# NumPy's codes. float16 would overflow, booleans can't be subtracted, and a long double may not be a finite float.
_COUNTED_AS: Final = {"e": "f", "?": "B", "g": "d"}
_FILMS: Final = "bytes of MP4, WebM, Ogg, GIF or WebP"
_PICTURES: Final = {rb"GIF8[79]a": ".gif", rb"RIFF.{4}WEBP": ".webp"}  # Of which both kinds may move.
_SIGNATURES: Final = {
    _IMAGES: {
        **_PICTURES,
        rb"\x89PNG\r\n\x1a\n": ".png",
        rb"\xff\xd8\xff": ".jpg",
        rb"(?i)(\xef\xbb\xbf)?\s*(?!<!doctype html)(<[?!].*?)?<svg\b": ".svg",
    },
    _SOUNDS: {
        rb"RIFF.{4}WAVE": ".wav",
        rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa\xfb]": ".mp3",
        rb"OggS": ".ogg",
        rb"fLaC": ".flac",
    },
    _FILMS: {**_PICTURES, rb".{4}ftyp": ".mp4", rb"\x1a\x45\xdf\xa3": ".webm", rb"OggS": ".ogg"},
}


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """A file in memory.

    Attributes:
        data: Its bytes.
        suffix: How its name ends: `.png`.
        details: What is known of it, JSON-like: `width`, `height` (pixels), `sample_rate_hz`, `duration_s`, …
    """

    data: bytes
    suffix: str
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class _Tensor(Protocol):
    """What PyTorch's tensors can do."""

    def is_complex(self) -> bool: ...
    def cfloat(self) -> _Tensor: ...
    def float(self) -> _Tensor: ...
    def numpy(self, *, force: bool) -> NDArray[Any]: ...


def as_array(value: Any) -> NDArray[Any]:
    """The numbers of an array of any framework, or of nested lists, in the host's memory, as NumPy holds them.

    Types that only machine learning has become the next larger one of NumPy's (bfloat16: float32), masked elements NaN.

    Raises:
        UsageError: It is no array of numbers or booleans, it is ragged, or its framework can't hand it over.
    """
    with _refusing(value, "an array of numbers (NumPy, PyTorch, JAX, nested lists)"):
        return _numbers(value)


def encode_image(image: Any) -> Encoded:
    """An image as PNG, or bytes of an image as they are.

    Args:
        image: An array (H, W), (H, W, 1|3|4) or, where it can't be the former, (1|3|4, H, W): floats from 0 to 1,
            others from 0 to 255; what is outside is clipped, and NaN is 0. Or a PIL image, or `bytes`.

    Raises:
        UsageError: It is none of these.
        MissingDependencyError: Pillow is not installed.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _encoded_already(bytes(image), _IMAGES)
    pillow = require("PIL.Image", "An image", "media")
    accepted = f"an array of shape (H, W), (H, W, 1|3|4) or (1|3|4, H, W), a PIL image, or {_IMAGES}"
    with _refusing(image, accepted):
        picture = image if isinstance(image, pillow.Image) else pillow.fromarray(_pixels(_numbers(image)))
        if picture.mode[0] == "I":
            picture = picture.convert("I").convert("I;16")  # In one step, Pillow clips at 255.
        elif picture.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:  # What PNG takes.
            grey = {"F": "L", "La": "LA"}.get(picture.mode)
            picture = picture.convert(grey or ("RGBA" if picture.mode[-1] in "Aa" else "RGB"))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
    return _png(buffer.getvalue())


def encode_figure(figure: Any) -> Encoded:
    """A figure: of plotly as JSON, of matplotlib as PNG without a change to it, anything else as `encode_image`.

    Args:
        figure: A matplotlib figure, subfigure or axes; `matplotlib.pyplot` for its current figure; a plotly figure; or
            what `encode_image` takes.

    Raises:
        UsageError: It is none of these, or can't be drawn.
        MissingDependencyError: Pillow is needed and not installed.
    """
    with _refusing(figure, "a matplotlib figure or axes, a plotly figure, or an image"):
        if is_a(figure, "plotly.basedatatypes", "BaseFigure"):
            return Encoded(figure.to_json().encode(), ".plotly.json")
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None and figure is pyplot:
            if not pyplot.get_fignums():  # `gcf` would make one.
                raise ValueError("pyplot has no figure open")
            figure = pyplot.gcf()
        if is_a(figure, "matplotlib.artist", "Artist"):
            while not is_a(figure, "matplotlib.figure", "Figure"):
                figure = figure.figure
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", bbox_inches="tight")
            return _png(buffer.getvalue())
    return encode_image(figure)


def encode_audio(samples: Any, sample_rate_hz: int) -> Encoded:
    """A sound as WAV of 16 bits, or bytes of a sound as they are.

    Args:
        samples: An array (n,), (n, channels) or (channels, n), of which the shorter is taken for the channels: floats
            from -1 to 1 (what is outside is clipped, NaN is 0) or int16. Or `bytes`.
        sample_rate_hz: Samples in a second.

    Raises:
        UsageError: It is none of these, or the rate is no positive number.
    """
    import numpy as np

    if isinstance(samples, (bytes, bytearray, memoryview)):
        return _encoded_already(bytes(samples), _SOUNDS)
    _require_between("sample_rate_hz", sample_rate_hz, 1, 2**31 - 1)
    with _refusing(samples, f"floats or int16 of shape (n,), (n, channels) or (channels, n), or {_SOUNDS}"):
        array = np.atleast_2d(_numbers(samples))
        if array.shape[0] < array.shape[1]:
            array = array.T
        if array.ndim != 2 or not array.size or (array.dtype.kind != "f" and array.dtype.str[1:] != "i2"):
            raise TypeError("the shape or the type of its elements does not fit")
        if array.dtype.kind == "f":
            array = np.rint(_clipped(array, -1.0) * 32767)
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(array.shape[1])
            file.setsampwidth(2)
            file.setframerate(sample_rate_hz)
            file.writeframes(array.astype("<i2").tobytes())
    details = {"sample_rate_hz": int(sample_rate_hz), "channels": array.shape[1]}
    return Encoded(buffer.getvalue(), ".wav", {**details, "duration_s": len(array) / sample_rate_hz})


def encode_video(frames: Any, frames_per_s: float) -> Encoded:
    """A film as animated GIF, which every browser and tracker shows; or bytes of a film as they are.

    Args:
        frames: An array (T, H, W), (T, H, W, 1|3|4) or (T, 1|3|4, H, W), or a list of T frames; each as in
            `encode_image`. Or `bytes`.
        frames_per_s: The speed. A GIF plays 50 frames a second at most.

    Raises:
        UsageError: It is none of these, or the speed is no positive number.
        MissingDependencyError: Pillow is not installed.
    """
    if isinstance(frames, (bytes, bytearray, memoryview)):
        return _encoded_already(bytes(frames), _FILMS)
    _require_between("frames_per_s", frames_per_s, 0.01, 1000)
    pillow = require("PIL.Image", "A video", "media")
    with _refusing(frames, f"an array of shape (T, H, W), (T, H, W, 1|3|4) or (T, 1|3|4, H, W), or {_FILMS}"):
        array = _numbers(frames)
        if not len(array):
            raise ValueError("it has no frames")
        pictures = [pillow.fromarray(_pixels(frame)).convert("RGB") for frame in array]
        # In hundredths of a second, as GIF has it. The ends are rounded, not the lengths: so the film keeps its time.
        ends = [round(index * 100 / frames_per_s) for index in range(len(pictures) + 1)]
        durations_ms = [10 * max(end - start, _MIN_FRAME_CS) for start, end in pairwise(ends)]
        buffer = io.BytesIO()
        pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations_ms, loop=0)
    width, height = pictures[0].size
    details = {"width": width, "height": height, "frames": len(pictures), "frames_per_s": float(frames_per_s)}
    return Encoded(buffer.getvalue(), ".gif", details)


def encode_tensor(array: Any) -> Encoded:
    """An array of numbers as `.npy`, for `numpy.load`. Details: `shape`, and `dtype` as it was given.

    Raises:
        UsageError: As `as_array`.
    """
    import numpy as np

    kept = as_array(array)
    buffer = io.BytesIO()
    np.save(buffer, kept, allow_pickle=False)
    dtype = str(getattr(array, "dtype", kept.dtype)).removeprefix("torch.")
    return Encoded(buffer.getvalue(), ".npy", {"dtype": dtype, "shape": list(kept.shape)})


def histogram(values: Any, bins: int = 64) -> dict[str, Any]:
    """The distribution of an array's elements.

    Args:
        values: Any array of real numbers or booleans; or `(counts, edges)`, as `numpy.histogram` gives it.
        bins: How many of equal width, 1 to 10,000; one where floats are too coarse for more.

    Returns:
        `{"edges": [n + 1 floats], "counts": [n floats], "nan": int, "inf": int}`; the last two count the elements that
        are in no bin. Without any finite element, one empty bin from 0 to 1.

    Raises:
        UsageError: It is neither, or `bins` is out of range.
    """
    import numpy as np

    _require_between("bins", bins, 1, _MAX_BINS)
    accepted = "an array of real numbers, or n counts and n + 1 ascending edges"
    with _refusing(values, accepted), np.errstate(all="ignore"):
        if (
            isinstance(values, tuple)
            and len(values) == 2
            and np.ndim(values[0])
            and len(values[1]) == len(values[0]) + 1
        ):
            counts, edges = (_numbers(part).astype(np.float64) for part in values)
            if not (edges.ndim == 1 and np.isfinite(counts).all() and _is_ascending(edges)):
                raise ValueError("its edges do not ascend, or its counts are not finite")
            nan = inf = 0
        else:
            array = _numbers(values).ravel()
            array = array.astype(_COUNTED_AS.get(array.dtype.char, array.dtype), copy=False)
            nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
            counts, edges = _counted(array[np.isfinite(array)] if nan + inf else array, bins)
        return {"edges": edges.tolist(), "counts": counts.astype(np.float64).tolist(), "nan": nan, "inf": inf}


def table(data: Any = None, columns: Sequence[Any] | None = None, rows: Any = None) -> dict[str, Any]:
    """A table of cells as `json_like` makes them.

    Args:
        data: A pandas frame (its index becomes a column unless it only counts), a mapping of columns of one length, or
            rows: mappings (or what `as_mapping` takes), sequences, a 2-d array.
        columns: Names; of a frame or of mappings, which columns to take. None: all, or `0`, `1`, …
        rows: The same as rows given for `data`.

    Returns:
        `{"columns": [str], "rows": [[…]]}`. Where rows are left out, because there are more than 10,000 or they are
        too large, also `"rows_total": int`.

    Raises:
        UsageError: It is none of these, or a row has more or fewer cells than there are columns.
    """
    given = rows if data is None else data
    with _refusing(given, "a pandas frame, a mapping of columns, or rows (mappings or sequences)"):
        names, lines, total = _table_parts(() if given is None and columns is not None else given, columns)
        for index, line in enumerate(lines):
            if len(line) != len(names):
                raise ValueError(f"row {index} has {len(line)} cells, and there are {len(names)} columns")
        if len(names) > MAX_COLUMNS:
            raise ValueError(f"it has {len(names)} columns, of {MAX_COLUMNS} allowed")
        made = json_like({"columns": [as_text(name) for name in names], "rows_total": total, "rows": lines})
        # A row that was cut in its middle is left out. So the same limits hold when the table is written.
        made["rows"] = [line for line in made["rows"] if line != CUT and (not line or line[-1] != CUT)]
        if len(made["rows"]) == total:
            del made["rows_total"]
    return dict(made)


# -- parts of the above ------------------------------------------------------------------------------------------------


@contextmanager
def _refusing(value: Any, accepted: str) -> Iterator[None]:
    """Turn whatever goes wrong, in our code or in that of the value, into one error for the user."""
    try:
        yield
    except Exception as error:
        what = type(value).__name__
        with suppress(Exception):  # Its own code may be what went wrong.
            what = f"{what} of shape {tuple(value.shape)}, {value.dtype}"
        raise UsageError(f"can't take {what} ({as_text(error):.300}); give {accepted}") from error


def _numbers(value: Any) -> NDArray[Any]:
    import numpy as np

    if isinstance(value, (list, tuple)) and any(isinstance(item, _Tensor) for item in value[:1]):
        value = [_numbers(item) for item in value]
    if isinstance(value, _Tensor):
        try:
            array = value.numpy(force=True)  # Also takes it off the device and out of the graph.
        except TypeError:  # NumPy has no bfloat16 and its like.
            array = (value.cfloat() if value.is_complex() else value.float()).numpy(force=True)
    elif isinstance(value, np.ma.MaskedArray):
        array = np.ma.filled(value.astype(np.float64), np.nan)
    else:
        array = np.asarray(value)
    if array.dtype.isbuiltin == 2:  # A type of `ml_dtypes`, which `numpy.load` would not know.
        name = array.dtype.name
        array = array.astype(np.complex64 if "complex" in name else np.int8 if "int" in name else np.float32)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"its elements are {array.dtype}, not numbers")
    return array


def _require_between(name: str, value: Any, low: float, high: float) -> None:
    if not (isinstance(value, numbers.Real) and low <= float(value) <= high):  # NaN is not.
        raise UsageError(f"{name} must be a number from {low} to {high}, not {as_text(value):.50}")


def _encoded_already(data: bytes, kind: str) -> Encoded:
    for signature, suffix in _SIGNATURES[kind].items():
        if re.match(signature, data[:4096], re.DOTALL):
            return Encoded(data, suffix)
    raise UsageError(f"can't tell what {len(data)} bytes that begin with {data[:12]!r} are; give {kind}")


def _png(data: bytes) -> Encoded:
    return Encoded(data, ".png", {"width": int.from_bytes(data[16:20]), "height": int.from_bytes(data[20:24])})


def _clipped(array: NDArray[Any], low: float) -> NDArray[Any]:
    import numpy as np

    with np.errstate(all="ignore"):  # A long double may be infinite as a float; then it is clipped.
        return np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=1.0, neginf=low), low, 1.0)


def _pixels(array: NDArray[Any]) -> NDArray[Any]:
    """One image as 8 bits, of shape (H, W), (H, W, 3) or (H, W, 4)."""
    import numpy as np

    channels = (1, 3, 4)
    if array.ndim == 3 and array.shape[-1] not in channels and array.shape[0] in channels:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not array.size or array.dtype.kind == "c" or (array.ndim != 2 and (array.ndim, array.shape[-1:]) not in _COLOUR):
        raise ValueError(f"an image can't have the shape {array.shape} and the type {array.dtype}")
    if array.dtype.kind == "b":
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        array = np.rint(_clipped(array, 0.0) * 255)
    else:
        array = np.clip(array, 0, min(255, np.iinfo(array.dtype).max))  # NumPy 2.0 refuses 255 for int8.
    return np.ascontiguousarray(array, np.uint8)


def _counted(array: NDArray[Any], bins: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """As `numpy.histogram`; in one bin where floats are too coarse, or the range too large, for more."""
    import numpy as np

    with suppress(ValueError):  # NumPy 2 finds out by itself.
        counts, edges = np.histogram(array, bins if array.size else 1)
        edges = edges.astype(np.float64)
        if _is_ascending(edges):
            return counts, edges
    low, high = float(array.min()), float(array.max())
    ends = [low, high] if low < high else [low, math.nextafter(low, 0.0)]
    return np.array([array.size]), np.array(sorted(ends))


def _is_ascending(edges: NDArray[np.float64]) -> bool:
    import numpy as np

    return bool(np.isfinite(edges).all() and (edges[1:] > edges[:-1]).all())


def _table_parts(data: Any, columns: Sequence[Any] | None) -> tuple[list[Any], list[list[Any]], int]:
    """The names of the columns, the first `MAX_ROWS` rows, and the count of all rows."""
    if is_a(data, "pandas", "DataFrame"):
        frame = data if columns is None else data[list(columns)]
        names, head = list(frame.columns), frame.head(MAX_ROWS)
        lines = [list(line) for line in head.itertuples(index=False, name=None)]
        if not is_a(frame.index, "pandas", "RangeIndex"):
            names.insert(0, "index" if frame.index.name is None else frame.index.name)
            lines = [[label, *line] for label, line in zip(head.index, lines, strict=True)]
        return names, lines, len(frame)
    if isinstance(data, Mapping):
        names = list(data) if columns is None else list(columns)
        series = [data[name] for name in names]
        lengths = {len(one) for one in series}
        if len(lengths) > 1 or any(isinstance(one, (str, bytes, Mapping)) for one in series):
            raise ValueError("its columns must be sequences of one length")
        return names, [list(line) for line in islice(zip(*series, strict=True), MAX_ROWS)], max(lengths, default=0)
    if isinstance(data, (str, bytes)):
        raise TypeError("a text is no table")
    rows = data if isinstance(data, Sequence) else list(data)
    head = rows[:MAX_ROWS]
    fields = [mapping for row in head if (mapping := as_mapping(row)) is not None]
    if fields and len(fields) == len(head):
        names = list(dict.fromkeys(key for mapping in fields for key in mapping) if columns is None else columns)
        return names, [[mapping.get(name) for name in names] for mapping in fields], len(rows)
    if any(isinstance(row, (str, bytes, Mapping)) for row in head):
        raise TypeError("its rows are neither all mappings nor all sequences")
    lines = [list(row) for row in head]
    return list(range(max(map(len, lines), default=0)) if columns is None else columns), lines, len(rows)
