"""`tracelet plan`: what a backend would not hold of a run as it was logged. On the main thread; nothing is sent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from tracelet.cli._delivery import ToOption, chosen_backends
from tracelet.cli._options import DirOption, JsonOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import clip, plural, print_json, print_pairs, print_title, stdout, texts

if TYPE_CHECKING:
    from tracelet.core.planning import PlannedChange

_SHOWN: Final = 5
_STYLES: Final = {"dropped": "red", "changed": "yellow", "cut": "yellow", "renamed": "cyan"}


def plan(
    run: RunArgument = "latest",
    to: ToOption = None,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a backend would rename, cut, change or drop of a run. Nothing is sent, and no server is asked."""
    from tracelet.core.planning import plan_run
    from tracelet.settings import TraceletSettings

    found, settings = open_run(run, dir, project), TraceletSettings.load()
    plans = {name: plan_run(found.path, name, settings) for name in chosen_backends(found, to, settings)}
    if json:
        print_json({
            name: [{**asdict(change), "kind": change.kind.value} for change in changes]
            for name, changes in plans.items()
        })  # fmt: skip
        return
    console = stdout()
    for name, changes in plans.items():
        if changes:
            print_title(console, name)
            _print_changes(console, changes)
        else:
            console.print(f"{name}: takes everything as it was logged", markup=False)


def _print_changes(console: Console, changes: list[PlannedChange]) -> None:
    for change in changes:
        kind = change.kind.value
        head = Text.assemble((f"  {kind:8}", _STYLES[kind]), f" {plural(change.records, 'record')}: ")
        console.print(head + clip(change.why, 4 * console.width), soft_wrap=True)
        names = list(change.names)[:_SHOWN]
        becomes = [clip(f"→ {new}" if (new := change.names[name]) is not None else "", console.width) for name in names]
        print_pairs(console, [Text("    ") + text for text in texts(names)], becomes)
        if len(change.names) > _SHOWN:
            console.print(f"      … {len(change.names) - _SHOWN:,} more names", style="dim")
