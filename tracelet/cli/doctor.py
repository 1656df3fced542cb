"""`tracelet doctor`: what is installed, what is set, what would fail, and how to mend it. On the main thread.

Nothing is left behind and no network is used. Of the plug-ins only those that the settings name are loaded.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import typer
from rich.console import Console
from rich.text import Text

from tracelet import __version__
from tracelet.cli._options import DirOption, JsonOption
from tracelet.cli._render import clean, clip, parameter, print_json, print_pairs, print_title, stdout, texts
from tracelet.core.plugins import BackendPlugin, PluginManager, PluginType
from tracelet.errors import SettingsError, TraceletError
from tracelet.journal.segment import can_map, filesystem_type

if TYPE_CHECKING:
    from tracelet.settings import TraceletSettings

_PACKAGES: Final = (
    "torch", "lightning", "pytorch-lightning", "transformers", "keras", "jax", "flax", "optax",
    "mlflow", "mlflow-skinny", "wandb", "clearml", "neptune",
    "numpy", "pandas", "pyarrow", "matplotlib", "plotext", "pillow", "psutil", "nvidia-ml-py", "docker",
)  # fmt: skip
_LITTLE_ROOM_BYTES: Final = 1 << 30
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY: Final = re.compile(r"(?<=\?)\S+")


@final
@dataclass
class Findings:
    """What was found.

    Attributes:
        facts: By section, by name.
        problems: What would fail, each with its remedy.
        notes: What works, but perhaps not as one thinks.
    """

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def doctor(dir: DirOption = None, json: JsonOption = False) -> None:
    """Check the installation and the settings.

    The exit code is 1 if something would fail.
    """
    findings = _examine(dir)
    if json:
        facts = {name.lower().replace(" ", "_"): section for name, section in findings.facts.items()}
        print_json({**facts, "problems": findings.problems, "notes": findings.notes})
    else:
        _print(stdout(), findings)
    if findings.problems:
        raise typer.Exit(1)


def _examine(directory: Path | None) -> Findings:
    from tracelet.settings import TraceletSettings

    findings = Findings()
    findings.facts["System"] = {
        "tracelet": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
    }
    try:
        settings = TraceletSettings.load(dir=directory)
    except SettingsError as error:
        findings.problems.append(str(error))
    else:
        findings.facts["Run directory"] = _directory_facts(settings, findings)
        findings.facts["Settings"] = _settings_facts(settings)
        findings.facts["Plug-ins in use"] = _plugin_facts(settings, findings)
        if settings.disabled:
            findings.notes.append("The setting `disabled` is on: nothing is recorded.")
    findings.facts["Packages"] = dict(_installed_packages())
    return findings


def _directory_facts(settings: TraceletSettings, findings: Findings) -> dict[str, Any]:
    """Where runs would be written, and how."""
    path = Path(os.path.abspath(settings.dir))
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free_bytes = shutil.disk_usage(there).free
    if not there.is_dir():
        findings.problems.append(f"{path} can't be made: {there} is a file. Set `dir` (TRACELET_DIR) to another place.")
    elif (refusal := _refusal(there)) is not None:
        findings.problems.append(f"{there} can't be written to: {refusal}. Mend that, or set `dir` (TRACELET_DIR).")
    elif free_bytes < _LITTLE_ROOM_BYTES:
        findings.notes.append(f"Only {free_bytes / 2**20:,.0f} MiB are free at {there}.")
    mode = settings.journal_mode
    if mode == "auto":
        mode = "map" if can_map(path) else "write"
    return {
        "path": str(path) if there == path else f"{path} (will be made)",
        "filesystem": filesystem_type(path) or "unknown",
        "free": f"{free_bytes / 2**30:,.1f} GiB",
        "journal mode": f"{mode} ({'memory-mapped' if mode == 'map' else 'by system calls'})",
    }


def _refusal(directory: Path) -> str | None:
    """Why no file can be made in a directory; None where one can. The file is gone at once."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return error.strerror


def _settings_facts(settings: TraceletSettings) -> dict[str, Any]:
    """Each setting with its origin; credentials are hidden."""
    origins = settings.origins()
    values = settings.model_dump(mode="json", exclude={"plugins"})
    facts = {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
    for name, config in settings.plugins.items():
        for key, value in _leaves(config, f"plugins.{name}"):
            facts[key] = {"value": value, "origin": origins["plugins"]}
    return facts


def _leaves(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}.{key}")
        else:  # An address may hold a password or a token.
            is_plain = isinstance(value, int | float | None)
            yield f"{prefix}.{key}", value if is_plain else _QUERY.sub("***", _USER_INFO.sub("***@", str(value)))


def _plugin_facts(settings: TraceletSettings, findings: Findings) -> dict[str, Any]:
    """The backends and collectors that the settings name, and whether they could start."""
    manager = PluginManager(
        allow=settings.plugins_allow, deny=settings.plugins_deny, configuration=settings.plugin_config
    )
    facts: dict[str, Any] = {}
    for kind, names in ((PluginType.BACKEND, settings.backend), (PluginType.COLLECTOR, settings.collectors or ())):
        for name in names:
            fault = _fault_of(manager, name, kind)
            facts[name] = f"{kind.value}, {'ready' if fault is None else 'would fail'}"
            if fault is not None:
                findings.problems.append(fault)
    known = {plugin.name.lower().replace("-", "_") for plugin in PluginManager.installed()}
    unknown = sorted(name for name in settings.plugins if name not in known)
    if unknown:
        findings.notes.append(f"The settings configure plug-ins that are not installed: {', '.join(unknown)}.")
    return facts


def _fault_of(manager: PluginManager, name: str, kind: PluginType) -> str | None:
    """What would stop `Experiment.start()`, or None."""
    try:
        managed = manager.load(name)
        managed.check_dependencies()
        if managed.metadata.type is not kind:
            return f"the plug-in {name!r} is a {managed.metadata.type.value}, and no {kind.value}: mend the setting."
        if isinstance(managed.plugin, BackendPlugin):
            managed.plugin.validate_config(managed.config)
    except TraceletError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
        return f"the plug-in {name!r} is broken: {type(error).__name__}: {error}"
    return None


def _installed_packages() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _print(console: Console, findings: Findings) -> None:
    for index, (title, section) in enumerate(findings.facts.items()):
        if index == 0:
            console.print(title, style="bold")
        else:
            print_title(console, title)
        if title == "Settings":
            _print_settings(console, section)
        elif title == "Packages":
            names = ", ".join(f"{name}\xa0{version}" for name, version in section.items())
            lines = textwrap.fill(
                names, console.width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )
            console.print(lines.replace("\xa0", " "))
        elif section:
            print_pairs(console, texts(section), [clip(value, console.width) for value in section.values()])
        else:
            console.print("  none", style="dim")
    for note in findings.notes:
        console.print(Text.assemble("\n", ("Note: ", "yellow"), clean(note)), soft_wrap=True)
    for problem in findings.problems:
        lines = "\n".join(map(clean, problem.splitlines()))
        console.print(Text.assemble("\n", ("Problem: ", "bold red"), lines), soft_wrap=True)
    if not findings.problems:
        console.print("\nNothing would fail.", style="green")


def _print_settings(console: Console, section: Mapping[str, Mapping[str, Any]]) -> None:
    """What was set, line by line; the defaults are in the documentation."""
    changed = {name: fact for name, fact in section.items() if fact["origin"] != "default"}
    cells = [
        clip(parameter(fact["value"]), 40) + Text(f"  from {clean(fact['origin'])}", "dim") for fact in changed.values()
    ]
    print_pairs(console, texts(changed), cells)
    rest = len(section) - len(changed)
    console.print(f"  {rest} others have their defaults: --json shows them", style="dim")
