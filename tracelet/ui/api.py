"""The answers of the server; see the package's docstring for the list. Each on a thread of Starlette's pool."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, final

import typer
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tracelet.cli._render import json_text
from tracelet.cli.export import cell as csv_cell
from tracelet.cli.filters import Row, parse_condition, parse_sort, sort_place
from tracelet.core.records import MetricType
from tracelet.errors import JournalError, RunNotFoundError, UsageError
from tracelet.journal.load import Run, Series
from tracelet.ui import curves, details
from tracelet.ui.catalog import Catalog, Entry
from tracelet.ui.files import file_response
from tracelet.ui.follow import Followed
from tracelet.utils.choosing import main_metrics, natural

_MAX_RUNS: Final = 100
_MAX_NAMES: Final = 200
_MAX_POINTS: Final = 20_000
_MAX_LIMIT: Final = 5000
_CSV_CHUNK: Final = 10_000
_FALLBACK_EPOCH: Final = "epoch"

N = TypeVar("N", int, float)


@final
class Api:
    """Answers about the runs of a catalog."""

    def __init__(self, catalog: Catalog, followed: Followed | None = None) -> None:
        self._catalog = catalog
        self._followed = followed or Followed()

    def routes(self) -> list[Route]:
        """What is answered where."""
        answers: Mapping[str, Callable[[QueryParams], Any]] = {
            "runs": self.runs,
            "run": self.run,
            "names": self.names,
            "series": self.series,
            "band": self.band,
            "pulse": self.pulse,
            "compare": self.compare,
            "console": self.console,
            "records": self.records,
        }
        routes = [Route(f"/api/{name}", _json(answer), name=name) for name, answer in answers.items()]
        return [*routes, Route("/api/csv", _checked(self.csv)), Route("/file", _checked(self.file))]

    # -- all runs ------------------------------------------------------------------------------------------------------

    def runs(self, query: QueryParams) -> dict[str, Any]:
        """The table."""
        conditions = [parse_condition(text) for text in query.getlist("filter") if text.strip()]
        key, descending = parse_sort(query.get("sort") or "started:desc")
        words = query.get("search", "").casefold().split()
        entries = self._catalog.entries
        by_time = (key.group, key.name) == ("", "started")
        if not conditions and not words and by_time:  # Of thousands only those that are shown are read.
            chosen = entries if descending else entries[::-1]
        else:
            pairs = [(row, entry) for entry in entries if (row := _row_of(entry)) is not None]
            pairs = [(row, e) for row, e in pairs if all(c.holds(row) for c in conditions) and _has_words(row, words)]
            if not (by_time and descending):
                pairs.sort(key=lambda pair: sort_place(key, pair[0], descending=descending), reverse=descending)
            chosen = [entry for _, entry in pairs]
        offset, limit = _number(query, "offset", 0, 0, 1 << 30), _number(query, "limit", 100, 1, _MAX_LIMIT)
        shown = chosen[offset : offset + limit]
        rows = [(row, entry) for entry in shown if (row := _row_of(entry)) is not None]
        latest = [row.latest for row, _ in rows]
        params = sorted({n for row, _ in rows for n in row.run.params if not n.startswith("env/")}, key=natural)
        return {
            "rows": [_row_facts(row, entry) for row, entry in rows],
            "total": len(chosen),
            "all": len(entries),
            "directory": str(self._catalog.directory),
            "keys": {
                "params": params[:_MAX_NAMES],
                "metric": sorted({name for found in latest for name in found}, key=natural)[:_MAX_NAMES],
                "tag": sorted({name for row, _ in rows for name in row.run.tags}),
            },
            "main": main_metrics(latest, 3),
            "unreadable": [{"path": path, "why": why} for path, why in self._catalog.unreadable.items()],
        }

    # -- one run -------------------------------------------------------------------------------------------------------

    def run(self, query: QueryParams) -> dict[str, Any]:
        """One run."""
        entry = self._catalog.find(_text(query, "run"))
        facts = details.run_facts(Run(entry.path))
        records, files = self._followed.of(entry.path).damage
        facts["damage"]["records"] += records
        facts["damage"]["files"] = sorted({*facts["damage"]["files"], *files})
        return {"key": entry.key, **facts}

    def console(self, query: QueryParams) -> dict[str, Any]:
        """What it printed."""
        before = _number(query, "before", 0, 0, 1 << 40) if "before" in query else None
        return details.console_page(self._run(query), _text(query, "name"), before)

    def records(self, query: QueryParams) -> dict[str, Any]:
        """Media, tables, texts, histograms."""
        kinds = {kind.value: kind for kind in MetricType}
        kind = kinds.get(_text(query, "type"))
        if kind is None:
            raise UsageError(f"there is no type {query['type'][:50]!r}; there are {', '.join(kinds)}")
        offset, superseded = _number(query, "offset", 0, 0, 1 << 30), query.get("all") == "1"
        return details.records_page(self._run(query), kind, _text(query, "name"), offset, superseded=superseded)

    def file(self, query: QueryParams) -> Response:
        """A file."""
        entry = self._catalog.find(_text(query, "run"))
        return file_response(entry.path, _text(query, "path"), show=query.get("show") == "1")

    # -- curves --------------------------------------------------------------------------------------------------------

    def names(self, query: QueryParams) -> dict[str, Any]:
        """The series of some runs."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self._entries(query):
            for name, (kind, count) in self._followed.of(entry.path).names().items():
                facts = found.setdefault(name, {"name": name, "kind": kind.value, "points": 0, "runs": 0})
                facts["points"] += count
                facts["runs"] += 1
        return {"series": [found[name] for name in sorted(found, key=natural)]}

    def series(self, query: QueryParams) -> dict[str, Any]:
        """Curves."""
        low, high = _range(query)
        points, weight = _number(query, "points", 1000, 4, _MAX_POINTS), _number(query, "smooth", 0.0, 0.0, 0.999)
        found = []
        for entry, name, label, x, series in self._placed(query):
            drawing = curves.drawn(x, series.values, low, high, points, weight)
            found.append({"run": entry.key, "name": name, "x_label": label, **drawing.facts()})
        return {"series": found}

    def band(self, query: QueryParams) -> dict[str, Any]:
        """Mean and extremes over runs."""
        low, high = _range(query)
        placed = list(self._placed(query))
        label = placed[0][2] if placed else curves.STEP
        drawing = curves.band(
            [(x, series.values) for _, _, _, x, series in placed],
            low,
            high,
            _number(query, "points", 500, 4, _MAX_POINTS),
        )
        return {"x_label": label, **drawing}

    def pulse(self, query: QueryParams) -> dict[str, Any]:
        """Whether something has come."""
        entries = self._entries(query)
        return {
            "runs": {
                entry.key: {
                    "version": self._followed.of(entry.path).version,
                    "status": entry.snapshot.status.value,
                    "last_step": entry.row.last_step,
                }
                for entry in entries
            }
        }

    def compare(self, query: QueryParams) -> dict[str, Any]:
        """Runs beside one another."""
        entries = self._entries(query)
        runs = [Run(entry.path) for entry in entries]
        facts = details.comparison(runs, [self._followed.of(entry.path) for entry in entries])
        return {"keys": [entry.key for entry in entries], **facts}

    def csv(self, query: QueryParams) -> Response:
        """The points, all of them."""
        low, high = _range(query)
        placed = list(self._placed(query))

        def lines() -> Iterator[str]:
            yield "run,metric,step,time_s,x,value\r\n"
            for entry, name, _, x, series in placed:
                shown = (x >= (float("-inf") if low is None else low)) & (x <= (float("inf") if high is None else high))
                rows = shown.nonzero()[0] if low is not None or high is not None else range(len(series))
                for start in range(0, len(rows), _CSV_CHUNK):
                    part = rows[start : start + _CSV_CHUNK]
                    text = io.StringIO()
                    columns = (column[part].tolist() for column in (series.steps, series.times_s, x, series.values))
                    head = [csv_cell(entry.key), csv_cell(name)]
                    csv.writer(text).writerows([*head, *numbers] for numbers in zip(*columns, strict=True))
                    yield text.getvalue()

        headers = {"Content-Disposition": 'attachment; filename="tracelet.csv"'}
        return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)

    def _placed(self, query: QueryParams) -> Iterator[tuple[Entry, str, str, curves.Floats, Series]]:
        """Each asked series of each run (and rank), with the name of its x-axis and where its points are on it."""
        names = [_bounded(name) for name in query.getlist("name")[:_MAX_NAMES]]
        wanted, superseded = query.get("x") or None, query.get("all") == "1"
        for entry in self._entries(query):
            followed = self._followed.of(entry.path)
            known = followed.names()
            defined = Run(entry.path).step_metrics if wanted is None else {}
            for name in names:
                if name not in known:
                    continue
                axis = _axis(wanted or defined.get(name, curves.STEP), known)
                other = followed.series(axis) if axis in known else None
                for rank in followed.ranks(name) if query.get("ranks") == "1" else [None]:
                    series = followed.series(name, rank, superseded=superseded)
                    yield entry, name, axis, curves.places(series, axis, other, entry.created_s), series

    # -- what is asked for ---------------------------------------------------------------------------------------------

    def _entries(self, query: QueryParams) -> list[Entry]:
        keys = dict.fromkeys(query.getlist("run"))
        if len(keys) > _MAX_RUNS:
            raise UsageError(f"{len(keys)} runs at once are too many; choose {_MAX_RUNS} at most")
        return [self._catalog.find(key) for key in keys]

    def _run(self, query: QueryParams) -> Run:
        return Run(self._catalog.find(_text(query, "run")).path)


def _axis(wanted: str, known: Mapping[str, object]) -> str:
    if wanted in known and wanted != curves.STEP:
        return wanted
    if wanted == _FALLBACK_EPOCH:  # Some frameworks put it under their stage.
        wanted = next((name for name in ("train/epoch", "epochs") if name in known), wanted)
    return wanted if wanted in known or wanted in (curves.RELATIVE, curves.WALL) else curves.STEP


def _row_of(entry: Entry) -> Row | None:
    """Its row; None where the run has gone since it was listed."""
    try:
        return entry.row
    except (OSError, JournalError):
        return None


def _has_words(row: Row, words: list[str]) -> bool:
    tags = " ".join(f"{name}={value}" for name, value in row.run.tags.items())
    text = f"{row.run.id} {row.run.name} {row.run.project} {tags}".casefold()
    return all(word in text for word in words)


def _row_facts(row: Row, entry: Entry) -> dict[str, Any]:
    run = row.run
    return {
        "key": entry.key,
        "id": run.id,
        "name": run.name,
        "project": run.project,
        "status": run.status.value,
        "started_s": run.created_s,
        "duration_s": run.duration_s,
        "last_step": row.last_step,
        "tags": run.tags,
        "params": {name: value for name, value in run.params.items() if not name.startswith("env/")},
        "metrics": {name: value for name, (_, value) in row.latest.items()},
    }


# -- questions and answers -------------------------------------------------------------------------------------------


def _text(query: QueryParams, name: str) -> str:
    if name not in query:
        raise UsageError(f"`{name}` is missing")
    return _bounded(query[name])


def _bounded(text: str) -> str:
    if len(text) > 4096:
        raise UsageError(f"a text of {len(text)} characters is too long")
    return text


def _number(query: QueryParams, name: str, default: N, low: N, high: N) -> N:
    """A number between two bounds; the nearer one where it is beyond.

    Raises:
        UsageError: It is none.
    """
    text = query.get(name)
    try:
        value = default if text is None or text == "" else type(default)(text)
    except ValueError:
        raise UsageError(f"`{name}` is a number, and {str(text)[:50]!r} is none") from None
    if math.isnan(value):
        raise UsageError(f"`{name}` is a number, and NaN is none")
    return min(max(value, low), high)


def _range(query: QueryParams) -> tuple[float | None, float | None]:
    ends = (_number(query, end, 0.0, -1e300, 1e300) if query.get(end) else None for end in ("from", "to"))
    low, high = ends
    return low, high


def _json(answer: Callable[[QueryParams], Any]) -> Callable[[Request], Response]:
    return _checked(lambda query: Response(_json_text(answer(query)), media_type="application/json"))


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=str)
    except ValueError:  # A parameter that is NaN, say. Looking for it first would cost more than all the rest.
        return json_text(value, indent=None)


def _checked(answer: Callable[[QueryParams], Response]) -> Callable[[Request], Response]:
    """An endpoint that says what is wrong with a question, and with a run."""

    def endpoint(request: Request) -> Response:
        try:
            return answer(request.query_params)
        except RunNotFoundError as error:
            return _failure(str(error), 404)
        except typer.BadParameter as error:
            return _failure(error.message, 400)
        except UsageError as error:
            return _failure(str(error), 400)
        except (JournalError, OSError) as error:
            return _failure(f"the run can't be read: {error}", 500)

    return endpoint


def _failure(text: str, code: int) -> Response:
    return Response(json_text({"error": text}), code, media_type="application/json")
