"""What is in TensorBoard's events: scalars in blocks, all else as records.

Called on the thread that imports, for the files of one directory in their order. Scalars as `SummaryWriter` writes them
are taken apart by one regular expression, a microsecond each; the rest field by field. The numbers of the fields are
those of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted
from tracelet.core.records import DESCRIPTION_NAME, REWIND_NAME, STATUS_NAME, MetricData, MetricType
from tracelet.importers._tensorboard.frames import Frames
from tracelet.importers._tensorboard.tensors import Tensor, histogram_of, tensor_histogram
from tracelet.importers.protobuf import Field, doubles, fields, message, signed, text
from tracelet.importers.rows import Rows

_SCALAR: Final = re.compile(
    rb"\x09(.{8})(?:\x10([\x80-\xff]{0,9}[\x00-\x7f]))?"  # wall_time, step
    rb"\x2a[\x00-\x7f]\x0a[\x00-\x7f]\x0a([\x00-\x7f])(.+)\x15(.{4})",  # summary, value, tag, simple_value
    re.DOTALL,
)
_TEXT_SUFFIX: Final = "/text_summary"
_STATUSES: Final = {1: "finished", 2: "failed"}
_START: Final = 1


@final
class EventReader:
    """Reads the events of one run."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._plugins: dict[str, str] = {}  # By tag: only the first summary of a tag names its plug-in.
        self._begin("")

    def _begin(self, name: str) -> None:
        """Each file counts for itself: an older one may still grow while there is a newer one."""
        self._source, self._rows = name, Rows(source=name)

    def items(self) -> Iterator[Item]:
        """All that the files hold."""
        for path in self._files:
            frames = Frames(path)
            self._begin(path.name)
            for data in frames:
                found = _SCALAR.fullmatch(data)
                if found is not None and len(found[4]) == found[3][0]:
                    wall, step, _, tag, value = found.groups(b"")
                    self._rows.add_bytes(tag, step, value, wall)
                else:
                    try:
                        for item in self._event(data):
                            yield replace(item, source=path.name) if isinstance(item, MetricData) else item
                    except (ValueError, struct.error) as error:
                        yield Omitted(f"a record of {path.name}", f"it can't be read: {error}")
                if self._rows.is_full:
                    yield self._rows.take()
            if frames.fault is not None:
                yield Omitted(f"the end of {path.name}", f"the file is {frames.fault}")
            yield self._rows.take()

    def _event(self, data: bytes) -> Iterator[Item]:
        wall, step = 0.0, 0
        for number, value in fields(data):
            match number:
                case 1:
                    (wall,) = doubles(message(value))
                case 2:
                    step = signed(value)
                case 4 | 9:
                    yield Omitted("the graph of the model", "Tracelet has no graphs")
                case 5:
                    for _, one in fields(message(value)):
                        yield from self._value(message(one), step, wall)
                case 7 if dict(fields(message(value))).get(1) == _START:
                    # A training that goes on: what was recorded from this step on is computed again.
                    yield self._rows.take()
                    rows = Rows(MetricType.SYSTEM, self._source)
                    rows.add(REWIND_NAME, step, step - 1.0, wall)
                    yield rows.take()
                case 8:
                    yield Omitted("the profile of a step", "Tracelet has no profiles")

    def _value(self, data: bytes, step: int, wall: float) -> Iterator[Item]:
        parts = dict(fields(data))
        tag = text(parts.get(1, b""))
        content = b""
        if 9 in parts:
            metadata = dict(fields(message(parts[9])))
            plugin = dict(fields(message(metadata.get(1, b""))))
            self._plugins.setdefault(tag, text(plugin.get(1, b"")))
            content = message(plugin.get(2, b""))
        plugin_name = self._plugins.get(tag, "")
        if plugin_name == "hparams":
            yield from _hyperparameters(content, wall)
        elif 2 in parts:
            (value,) = struct.unpack("<f", message(parts[2]))
            self._rows.add(tag, step, value, wall)
        elif 4 in parts:
            image = dict(fields(message(parts[4])))
            yield MetricData(tag, message(image.get(4, b"")), MetricType.IMAGE, step, wall)
        elif 5 in parts:
            yield MetricData(tag, histogram_of(message(parts[5])), MetricType.HISTOGRAM, step, wall)
        elif 6 in parts:
            sound = dict(fields(message(parts[6])))
            (rate,) = struct.unpack("<f", message(sound.get(1, bytes(4))))
            yield MetricData(
                tag, message(sound.get(4, b"")), MetricType.AUDIO, step, wall, metadata={"sample_rate_hz": round(rate)}
            )
        elif 8 in parts:
            yield from self._tensor(tag, plugin_name, Tensor(message(parts[8])), step, wall)

    def _tensor(self, tag: str, plugin: str, tensor: Tensor, step: int, wall: float) -> Iterator[Item]:
        """A value as TensorFlow 2 writes it: a tensor, whose meaning its plug-in tells."""
        match plugin:
            case "scalars":
                self._rows.add(tag, step, float(tensor.numbers().reshape(-1)[0]), wall)
            case "text":
                told = "\n".join(piece.decode("utf-8", "replace") for piece in tensor.strings)
                yield MetricData(tag.removesuffix(_TEXT_SUFFIX), told, MetricType.TEXT, step, wall)
            case "histograms":
                yield MetricData(tag, tensor_histogram(tensor.numbers()), MetricType.HISTOGRAM, step, wall)
            case "images":
                pictures = tensor.strings[2:]  # Before them come width and height.
                for index, picture in enumerate(pictures):
                    name = tag if len(pictures) == 1 else f"{tag}/{index}"
                    yield MetricData(name, picture, MetricType.IMAGE, step, wall)
            case "audio":
                sounds = tensor.strings[:: 2 if len(tensor.shape) > 1 else 1]  # Beside each is its label.
                for index, sound in enumerate(sounds):
                    name = tag if len(sounds) == 1 else f"{tag}/{index}"
                    yield MetricData(name, sound, MetricType.AUDIO, step, wall)
            case "" if not tensor.strings and tensor.numbers().size == 1:
                self._rows.add(tag, step, float(tensor.numbers().reshape(-1)[0]), wall)
            case _:
                yield Omitted(f"data of the plug-in {plugin!r}", "only TensorBoard's own view can show it")


def _hyperparameters(content: bytes, wall: float) -> Iterator[Item]:
    """What `add_hparams` wrote: the parameters at the session's start, the status at its end."""
    for number, value in fields(content):
        if number == 3:
            for inner, entry in fields(message(value)):
                if inner == 1:
                    pair = dict(fields(message(entry)))
                    name = text(pair.get(1, b""))
                    yield MetricData(name, _plain(message(pair.get(2, b""))), MetricType.PARAMETER, None, wall)
                elif inner == 2 and entry:
                    yield MetricData(DESCRIPTION_NAME, text(entry), MetricType.CUSTOM, None, wall)
        elif number == 4:
            status = dict(fields(message(value))).get(1)
            if isinstance(status, int) and status in _STATUSES:
                yield MetricData(STATUS_NAME, _STATUSES[status], MetricType.CUSTOM, None, wall)


def _plain(value: bytes) -> Any:
    """What a `google.protobuf.Value` holds."""
    for number, inner in fields(value):
        match number:
            case 2:
                return doubles(message(inner))[0]
            case 3:
                return text(inner)
            case 4:
                return bool(inner)
            case 6:
                return [_plain(message(item)) for _, item in fields(message(inner))]
    return None


def wall_time(data: bytes) -> float | None:
    """When an event was written: Unix time in seconds."""
    try:
        first: tuple[int, Field] = next(fields(data), (0, 0))
        return doubles(message(first[1]))[0] if first[0] == 1 else None
    except ValueError:
        return None
