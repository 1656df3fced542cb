"""`tracelet plugins`: what is installed. On the main thread. Nothing is imported without `--check`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Final, final

import typer
from rich.text import Text

from tracelet.cli._options import JsonOption
from tracelet.cli._render import Column, clean, print_json, print_table, stdout, texts
from tracelet.core.plugins import FoundPlugin, ManagedPlugin, PluginManager
from tracelet.errors import MissingDependencyError, PluginError

_STYLES: Final = {"ok": "green", "not ready": "yellow", "broken": "red"}


@final
@dataclass(frozen=True)
class Checked:
    """What came of loading a plug-in.

    Attributes:
        state: `ok`, `not ready` (a package is missing) or `broken`.
        reason: Why it is not `ok`; empty otherwise.
        kind: `backend`, `collector`, `framework` or `processor`; empty where it can't be told.
        version: The plug-in's own; empty where it can't be told.
    """

    state: str
    reason: str = ""
    kind: str = ""
    version: str = ""

    @classmethod
    def by_loading(cls, found: FoundPlugin) -> Checked:
        """Import a plug-in, and look whether it could be used."""
        kind = version = ""
        try:
            managed = ManagedPlugin(found.load(), {})
            kind, version = managed.metadata.type.value, managed.metadata.version
            managed.check_dependencies()
        except MissingDependencyError as error:
            return cls("not ready", str(error), kind, version)
        except PluginError as error:
            return cls("broken", str(error), kind, version)
        except Exception as error:  # noqa: BLE001 - a broken plug-in may raise anything
            return cls("broken", f"{type(error).__name__}: {error}", kind, version)
        return cls("ok", "", kind, version)


def plugins(
    check: Annotated[bool, typer.Option("--check", help="Load each one, and report what is broken.")] = False,
    json: JsonOption = False,
) -> None:
    """List the installed plug-ins.

    With --check each is loaded, and the exit code is 1 if one is broken. One that only lacks a package is not ready.
    """
    found = sorted(PluginManager.installed(), key=lambda plugin: (plugin.group, plugin.name))
    checked = [Checked.by_loading(plugin) for plugin in found] if check else []
    if json:
        _print_json(found, checked)
    elif not found:
        stdout().print("No plug-ins are installed.")
    else:
        _print(found, checked)
    if any(one.state == "broken" for one in checked):
        raise typer.Exit(1)


def _print_json(found: list[FoundPlugin], checked: list[Checked]) -> None:
    facts = [{name: getattr(plugin, name) for name in ("name", "group", "target", "package")} for plugin in found]
    for fact, one in zip(facts, checked, strict=False):  # Where nothing was checked, there is nothing to add.
        fact.update(asdict(one))
    print_json(facts)


def _print(found: list[FoundPlugin], checked: list[Checked]) -> None:
    console = stdout()
    columns = [Column("NAME", texts(plugin.name for plugin in found), limit=24)]
    if checked:
        columns += [
            Column("KIND", texts(one.kind or "?" for one in checked)),
            Column("VERSION", texts(one.version or "?" for one in checked), limit=12, rank=1),
            Column("STATE", [Text(one.state, _STYLES[one.state]) for one in checked]),
        ]
    else:
        columns.append(Column("GROUP", texts(plugin.group for plugin in found)))
    columns.append(Column("PACKAGE", texts(plugin.package for plugin in found), limit=24))
    if not checked:
        columns.append(Column("TARGET", texts(plugin.target for plugin in found), limit=60, rank=1))
    print_table(console, columns)
    faults = [one.reason for one in checked if one.reason]
    if faults:
        console.print()
    for fault in faults:
        console.print(clean(fault), soft_wrap=True)
    if not checked:
        console.print("\n`tracelet plugins --check` loads each one, and says whether it could be used.", style="dim")
