"""No plug-in of ours without its contract suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path

from tracelet.core.plugins import PluginBase
from tracelet.testing import (
    BackendContract,
    CollectorContract,
    FrameworkContract,
    ImporterContract,
    ProcessorContract,
)

ROOT = Path(__file__).parents[2]
HOMES = ["backends", "collectors", "frameworks", "importers", "processors"]
SUITES = (BackendContract, CollectorContract, FrameworkContract, ImporterContract, ProcessorContract)


def modules_of(package: Path) -> list[str]:
    return [f"{package.parent.name}.{package.name}.{info.name}" for info in pkgutil.iter_modules([str(package)])]


def plugins_of(module: str) -> set[type]:
    members = vars(importlib.import_module(module)).values()
    return {
        member
        for member in members
        if isinstance(member, type)
        and issubclass(member, PluginBase)
        and not inspect.isabstract(member)
        and member.__module__ == module
    }


def test_every_plugin_has_a_contract_suite():
    ours = {cls for home in HOMES for module in modules_of(ROOT / "tracelet" / home) for cls in plugins_of(module)}
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for target in [target for group in groups if group.startswith("tracelet.") for target in groups[group].values()]:
        module, _, name = target.partition(":")
        ours.add(getattr(importlib.import_module(module), name))

    suites = [
        member
        for path in Path(__file__).parent.glob("test_*.py")
        for member in vars(importlib.import_module(f"tests.contract.{path.stem}")).values()
        if isinstance(member, type) and issubclass(member, SUITES) and member.__name__.startswith("Test")
    ]
    assert ours
    assert set() == ours - {suite.subject for suite in suites}
