"""`model.json` for programs and `MODEL.md` for people: what a model's directory holds, and how to load it.

Called on the user's thread by `saving`. A card may be a stranger's: what it says is shown and compared, never run.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tracelet.errors import UsageError

CARD_FILE: Final = "model.json"
TEXT_FILE: Final = "MODEL.md"
_FORMAT: Final = 1
_MAX_BYTES: Final = 4 << 20


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of distributions, of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_card(directory: Path, card: Mapping[str, Any]) -> None:
    """Write both files.

    Raises:
        OSError: The disk does not take them.
    """
    (directory / CARD_FILE).write_text(json.dumps({"format": _FORMAT, **card}, indent=1, default=str) + "\n")
    (directory / TEXT_FILE).write_text("\n".join(_lines(card)) + "\n", encoding="utf-8")


def read_card(directory: Path) -> dict[str, Any]:
    """Read `model.json`.

    Raises:
        UsageError: There is none, or not one of ours.
    """
    path = directory / CARD_FILE
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is too large")
        card = json.loads(path.read_bytes())
        if not isinstance(card, dict) or not isinstance(card.get("framework"), str):
            raise ValueError("it names no framework")
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{directory} holds no model that log_model() wrote: {CARD_FILE}: {error}") from error
    if card.get("format") != _FORMAT:
        raise UsageError(f"{path} has the format {card.get('format')!r:.20}; this Tracelet reads {_FORMAT}: upgrade it")
    return card


def _lines(card: Mapping[str, Any]) -> list[str]:
    lines = [f"# {card['class']}", "", "| | |", "|---|---|", f"| framework | {card['framework']} |"]
    lines += [f"| {package} | {version} |" for package, version in card["versions"].items()]
    if card["parameters"] is not None:
        lines.append(f"| parameters | {card['parameters']:,} |")
    lines.append(f"| weights | `{card['weights']}` |")
    told = {key: json.dumps(value) for key, value in card["signature"].items() if value is not None}
    bar = "\\|"  # Else it would end the cell.
    lines += [f"| {key} | `{text.replace('|', bar)}` |" for key, text in told.items()]
    if card["source"] is not None:
        lines.append(f"| source, as it was | `{card['source']}` |")
    return [*lines, "", "Load it from this directory:", "", "```python", card["code"].rstrip(), "```"]
