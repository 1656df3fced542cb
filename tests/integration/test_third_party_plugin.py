"""Somebody else's backend, that of the plug-in guide: built as a wheel, installed with pip, chosen by its name."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.guide import ROOT, snippet, write_package

BROKEN = """
[project]
name = "tracelet-broken"
version = "1.0.0"

[project.entry-points."tracelet.backends"]
broken = "tracelet_broken:Backend"
gone = "no_such_module:Backend"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["src/tracelet_broken"]
"""


def run(*command: str | Path, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings}
    return subprocess.run(command, check=False, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two installed packages: the guide's, and a broken one."""
    sources, wheels, installed = (tmp_path_factory.mktemp(name) for name in ("sources", "wheels", "installed"))
    write_package(sources / "sqlite")
    module = sources / "broken" / "src" / "tracelet_broken" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text("raise RuntimeError('this package is broken')\n")
    (sources / "broken" / "pyproject.toml").write_text(BROKEN)
    for source in sources.iterdir():
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, source]
        done = run(*build, cwd=sources)
        assert done.returncode == 0, done.stdout + done.stderr
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", installed]
    done = run(*pip, *wheels.glob("*.whl"), cwd=wheels)
    assert done.returncode == 0, done.stdout + done.stderr
    return installed


def python(code: str, packages: Path, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(packages), str(ROOT)])
    return run(sys.executable, "-c", code, cwd=folder, PYTHONPATH=path, **settings)


def test_installed_backend_is_chosen_by_its_name(packages: Path, tmp_path: Path):
    done = python(snippet("after the installation"), packages, tmp_path, TRACELET_PLUGINS__SQLITE__PATH="all.db")
    assert (0, "") == (done.returncode, done.stderr)
    with sqlite3.connect(tmp_path / "all.db") as database:
        assert [("loss", 0, 0.5)] == database.execute("SELECT name, step, value FROM metrics").fetchall()
    database.close()


def test_installed_backend_is_chosen_by_the_settings(packages: Path, tmp_path: Path):
    code = "from tracelet import Experiment\nwith Experiment('test') as e: e.log_metric('loss', 0.5, 0)"
    done = python(code, packages, tmp_path, TRACELET_BACKEND="sqlite")
    assert (0, "") == (done.returncode, done.stderr)
    assert 1 == len(list(tmp_path.glob("tracelet_runs/default/*/delivery/sqlite/metrics.db")))


def test_wrong_setting_is_an_error_at_the_start(packages: Path, tmp_path: Path):
    done = python(snippet("after the installation"), packages, tmp_path, TRACELET_PLUGINS__SQLITE__PATH="all.txt")
    assert "SettingsError: the settings of the backend 'sqlite' are wrong" in done.stderr
    assert "the name of a database ends in .db" in done.stderr
    assert not (tmp_path / "tracelet_runs").exists()


def test_installed_plugins_are_listed_without_importing_them(packages: Path, tmp_path: Path):
    code = """
import sys
from tracelet.core.plugins import PluginManager
print(*sorted(plugin.name for plugin in PluginManager.installed()))
print(sorted({"tracelet_sqlite", "tracelet_broken"} & set(sys.modules)))
"""
    done = python(code, packages, tmp_path)
    names, imported = done.stdout.splitlines()
    assert {"broken", "gone", "sqlite"} <= set(names.split())
    assert "[]" == imported


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("broken", "PluginError: the plug-in 'broken' of tracelet-broken 1.0.0 can't be loaded from tracelet_broken"),
        ("gone", "MissingDependencyError: the plug-in 'gone' of tracelet-broken 1.0.0 can't be imported"),
        ("sqlight", "PluginNotFoundError: no plug-in 'sqlight' (did you mean 'sqlite'?) is installed"),
    ],
)
def test_broken_plugin_is_an_error_where_it_is_asked_for(packages: Path, tmp_path: Path, name: str, error: str):
    code = f"from tracelet import Experiment\nExperiment('test', backend=['sqlite', {name!r}]).start()"
    done = python(code, packages, tmp_path)
    assert done.returncode != 0
    assert error in done.stderr
    assert not (tmp_path / "tracelet_runs").exists()


@pytest.mark.parametrize("rule", [{"TRACELET_PLUGINS_DENY": "sqlite"}, {"TRACELET_PLUGINS_ALLOW": "jsonl,memory"}])
def test_plugin_that_the_settings_do_not_allow_is_not_imported(packages: Path, tmp_path: Path, rule: dict[str, str]):
    code = """
import sys
from tracelet import Experiment
try:
    Experiment("test", backend="sqlite").start()
except LookupError as error:
    print(error, "tracelet_sqlite" in sys.modules)
"""
    done = python(code, packages, tmp_path, **rule)
    assert "the plug-in 'sqlite' is installed, but the settings do not allow it False\n" == done.stdout
