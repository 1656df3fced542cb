"""The plug-in guide's page, taken apart: its snippets, and the files of the package that it shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_FILES = ("src/", "tests/", "pyproject.toml")


def snippets(page: str | None = None) -> list[tuple[str, str | None, str]]:
    """Language, title and text of each, in the plug-in guide or another page."""
    text = page or (ROOT / "docs" / "plugin-guide.md").read_text()
    return [(match[1], match[2], match[3]) for match in _FENCE.finditer(text)]


def snippet(title: str) -> str:
    (found,) = [text for _, name, text in snippets() if name == title]
    return found


def write_package(folder: Path) -> None:
    """Write the files of the package that the guide shows."""
    for _, title, text in snippets():
        if title is not None and title.startswith(_FILES):
            file = folder / title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    next(folder.glob("src/*/__init__.py")).with_name("py.typed").touch()
