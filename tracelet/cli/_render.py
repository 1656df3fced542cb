"""How things look on a terminal: texts, numbers, times, tables, JSON. Called by every command, on the main thread.

Guarantee: `clean` leaves nothing of a text that a terminal or Rich would take as a command, and JSON is strict.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from rich.console import Console
from rich.text import Text

from tracelet.journal.status import RunStatus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PIPE_WIDTH: Final = 160  # Nobody's window is known where the output is no terminal: cut less than a terminal would.
_GAP: Final = 2  # Columns of blanks between two columns of a table.
_BARS: Final = "▁▂▃▄▅▆▇█"
_NO_VALUE: Final = "·"
_LARGE, _SMALL = 1e7, 1e-4
_BYTE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STATUS_STYLES: Final = {
    RunStatus.RUNNING: "cyan",
    RunStatus.FINISHED: "green",
    RunStatus.FAILED: "red",
    RunStatus.KILLED: "yellow",
}

# -- consoles ----------------------------------------------------------------------------------------------------------


def stdout() -> Console:
    """Standard output. Without a terminal there are no colours, and more room."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, markup=False, emoji=False, width=None if known else _PIPE_WIDTH)


def print_error(message: str) -> None:
    """One error on standard error."""
    _complain("Error: ", "bold red", message)


def _complain(label: str, style: str, message: str) -> None:
    text = Text.assemble((label, style), "\n".join(map(clean, message.splitlines())))
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


@final
class _WarningHandler(logging.Handler):
    """Shows the library's warnings as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        _complain("Warning: ", "yellow", record.getMessage())


@contextlib.contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """What the library logs meanwhile goes to standard error."""
    log, handler = logging.getLogger("tracelet"), _WarningHandler(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


# -- texts and numbers -------------------------------------------------------------------------------------------------


def clean(value: object) -> str:
    r"""A text without line breaks, terminal escapes and invisible characters: each is shown as `\n`, `\x1b`, ….

    Two texts that differ still look different.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clip(value: object, width: int) -> Text:
    """A clean text of at most `width` columns; a cut is marked with `…`."""
    text = str(value)
    text = clean(text if len(text) <= 4 * width else text[: 4 * width])  # Some characters take no column, few do.
    clipped = Text(text)
    clipped.truncate(width, overflow="ellipsis")
    return clipped


def number(value: float) -> str:
    """A number with four digits that matter, and its integer part whole up to a million."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "-inf" if value < 0 else "inf"
    size = abs(value)
    if value == int(value) and size < _LARGE:
        return f"{int(value)}"
    if not _SMALL <= size < _LARGE:
        return f"{value:.3e}"
    digits_before = max(math.floor(math.log10(size)) + 1, -2)
    text = f"{value:.{max(4 - digits_before, 0)}f}"
    # `1.000` for 0.99999 says that something was rounded; the 0.3 that 0.1 + 0.2 gives was not.
    is_exact = "." in text and math.isclose(float(text), value, rel_tol=1e-12)
    return text.rstrip("0").rstrip(".") if is_exact else text


def quantity(name: str, value: float) -> str:
    """A number as `number` has it; one of a series `…_bytes` or `…_bytes_per_s` in a unit that people read."""
    if not name.endswith(("_bytes", "_bytes_per_s")) or not math.isfinite(value):
        return number(value)
    power = 0
    while abs(value) >= 1024 and power < len(_BYTE_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{number(round(value, 1))} {_BYTE_UNITS[power]}{'/s' if name.endswith('_per_s') else ''}"


def signed(difference: float) -> str:
    """A difference, with its sign."""
    return f"{'+' if difference > 0 else ''}{number(difference)}"


def parameter(value: object) -> str:
    """A parameter as JSON has it, but a text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def plural(count: int, noun: str) -> str:
    """`1 record`, `1,200 records`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 m 05 s`, `2 h 07 m`, `3 d 04 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for size, unit, small_size, small_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small_size:02d} {small_unit}"
    return f"{whole} s"


def moment(time_s: float) -> str:
    """A Unix time as local date and time."""
    return _local(time_s, "%Y-%m-%d %H:%M:%S")


def ago(time_s: float) -> str:
    """How long a Unix time is past, as `5 min ago`; the date after a week."""
    past_s = time.time() - time_s
    if past_s < 0 or past_s >= 7 * 86_400:
        return _local(time_s, "%Y-%m-%d")
    for size_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if past_s >= size_s:
            return f"{int(past_s // size_s)} {unit} ago"
    return "just now"


def _local(time_s: float, form: str) -> str:
    try:
        return time.strftime(form, time.localtime(time_s))
    except (OverflowError, ValueError, OSError):  # A damaged or foreign `run.json` may hold any number.
        return number(time_s)


def status_text(status: RunStatus) -> Text:
    """A status in its colour."""
    return Text(status.value, _STATUS_STYLES[status])


def sparkline(values: NDArray[np.float64], width: int) -> str:
    """The course of a series in `width` characters at most; `·` where it has no finite value."""
    import numpy as np

    parts = np.array_split(values, min(width, len(values))) if len(values) else []
    finite = [part[np.isfinite(part)] for part in parts]
    means = [_mean(part) if len(part) else math.nan for part in finite]
    known = [mean for mean in means if not math.isnan(mean)]
    low = min(known, default=0.0)
    # Halved, or the span of the largest numbers would be infinite.
    span = max(known, default=0.0) / 2 - low / 2
    levels = (mean if math.isnan(mean) else 0.5 if span == 0 else (mean / 2 - low / 2) / span for mean in means)
    return "".join(_NO_VALUE if math.isnan(x) else _BARS[min(int(x * len(_BARS)), len(_BARS) - 1)] for x in levels)


def _mean(values: NDArray[np.float64]) -> float:
    """No more or less than any of them, as a sum that is rounded may be: a constant has no course."""
    mean = float((values / 2 / len(values)).sum()) * 2  # Halved, or that of the largest numbers would be infinite.
    return min(max(mean, float(values.min())), float(values.max()))


# -- tables ------------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: The heading.
        cells: One a row.
        right: For numbers: aligned to the right, and never cut.
        limit: The width at which cells are cut.
        rank: Where not all columns fit, the highest rank above 0 goes first. 0 always stays.
    """

    title: str
    cells: Sequence[Text]
    right: bool = False
    limit: int = 40
    rank: int = 0

    @property
    def heading(self) -> Text:
        """The title as it is shown."""
        return clip(self.title, self.limit)

    def width(self) -> int:
        """Of the widest cell, in columns of the terminal."""
        widest = max((cell.cell_len for cell in self.cells), default=0)
        return max(self.heading.cell_len, widest if self.right else min(widest, self.limit))


def texts(values: Iterable[object]) -> list[Text]:
    """Cells of plain text."""
    return [value if isinstance(value, Text) else Text(clean(value)) for value in values]


def print_table(console: Console, columns: Sequence[Column], indent: int = 0) -> None:
    """Print a table that fits the console; name the columns that had to go."""
    shown = list(columns)
    dropped: list[Column] = []

    def excess() -> int:
        return indent + sum(column.width() + _GAP for column in shown) - _GAP - console.width

    while excess() > 0 and (extra := max(shown, key=lambda column: column.rank)).rank > 0:
        shown.remove(extra)
        dropped.insert(0, extra)
    widths = [column.width() for column in shown]
    _print_cells(console, [column.heading for column in shown], shown, widths, indent, "bold")
    for row in zip(*(column.cells for column in shown), strict=True):
        _print_cells(console, row, shown, widths, indent)
    if dropped:
        names = ", ".join(clean(column.title) for column in dropped)
        console.print(clip(f"{' ' * indent}(no room for: {names})", console.width), style="dim")


def _print_cells(
    console: Console,
    cells: Sequence[Text],
    columns: Sequence[Column],
    widths: Sequence[int],
    indent: int,
    style: str = "",
) -> None:
    """One line of a table."""
    line = Text(" " * indent)
    for cell, column, width in zip(cells, columns, widths, strict=True):
        fitted = cell.copy()
        fitted.truncate(width, overflow="ellipsis")
        blanks = " " * (width - fitted.cell_len)
        line += Text(blanks) + fitted if column.right else fitted + Text(blanks)
        line += Text(" " * _GAP)
    line.rstrip()
    console.print(line, style=style, soft_wrap=True)


def print_title(console: Console, title: str) -> None:
    """Begin a section."""
    console.print()
    console.print(title, style="bold")


def print_pairs(console: Console, names: Sequence[Text], values: Sequence[Text]) -> None:
    """Names and what belongs to them, a line each; what does not fit is cut."""
    width = min(max((name.cell_len for name in names), default=0), 40)
    for name, value in zip(names, values, strict=True):
        _print_cells(
            console, [name, value], [Column("", ())] * 2, [width, max(console.width - width - 2 * _GAP, 20)], _GAP
        )


# -- JSON --------------------------------------------------------------------------------------------------------------


def strict(value: Any) -> Any:
    """The value with NaN and infinities as the texts `NaN`, `Infinity`, `-Infinity`: JSON has no numbers for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value


def json_text(value: Any, indent: int | None = 2) -> str:
    """The value as strict JSON, in ASCII: safe for every terminal and parser."""
    return json.dumps(strict(value), indent=indent, allow_nan=False, default=str)


def print_json(value: Any) -> None:
    """Print the value as strict JSON."""
    sys.stdout.write(json_text(value) + "\n")
