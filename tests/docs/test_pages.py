"""Every Python snippet of the pages below runs as it stands, one after the other, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "docs/index.md",
    "docs/concepts.md",
    "docs/processors.md",
    "docs/redaction.md",
    "docs/artifacts.md",
    "docs/models.md",
    "docs/resume.md",
]

_FENCE = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def snippets(page: str) -> list[str]:
    return [match[2] for match in _FENCE.finditer((ROOT / page).read_text())]


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = snippets(page)
    assert found
    for number, snippet in enumerate(found, 1):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), namespace)  # noqa: S102  Our own page.


def test_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        def __init__(self, logger: object) -> None: ...

    from tracelet_lightning import TraceletLogger

    namespace: dict[str, object] = {"Trainer": Trainer, "TraceletLogger": TraceletLogger}
    for number, snippet in enumerate(snippets("README.md"), 1):
        exec(compile(snippet, f"README.md, snippet {number}", "exec"), namespace)  # noqa: S102  Our own page.
