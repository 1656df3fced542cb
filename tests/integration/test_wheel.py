"""The wheel, built and installed in an empty virtual environment: everything is in it, and no framework is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ["tracelet", "tracelet_lightning", "tracelet_hf", "tracelet_keras"]

LOG_A_RUN = """
import tracelet

with tracelet.Experiment("first", project="demo", config={"lr": 0.1}) as experiment:
    experiment.log_metric("loss", 0.5, iteration=0)

run = tracelet.load_run("latest")
assert [0.5] == run.series("loss").values.tolist()
assert {"lr": 0.1} == dict(run.params)
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, check=False, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that has the wheel, what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    return python


def test_wheel_has_every_module_and_type_marker(wheel: Path):
    in_tree = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_tree | {f"{name}/py.typed" for name in PACKAGES} <= in_wheel
    assert set(PACKAGES) == {name.partition("/")[0] for name in in_wheel}


def test_wheel_metadata_is_complete(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(texts["METADATA"])
    expected = {"Name": "tracelet", "License-Expression": "Apache-2.0", "Requires-Python": ">=3.11"}
    assert expected == {key: metadata[key] for key in expected}
    extras = "lightning hf keras flax mlflow wandb clearml neptune gpu docker git system media parquet aim"
    assert {*extras.split(), "ui", "import", "models", "zstd", "all", "dev"} == set(
        metadata.get_all("Provides-Extra", [])
    )
    assert "Apache License" in texts["LICENSE"]


def test_entry_points_of_the_wheel_can_be_loaded(clean_python: Path, tmp_path: Path):
    code = """
from importlib.metadata import distribution
for point in distribution("tracelet").entry_points:
    point.load()
    print(point.group, point.name)
"""
    found = run(clean_python, "-c", code, cwd=tmp_path).splitlines()
    assert {"console_scripts tracelet", "tracelet.backends jsonl", "tracelet.backends memory"} <= set(found)


def test_installed_wheel_records_and_lists_a_run_without_any_framework(clean_python: Path, tmp_path: Path):
    run(clean_python, "-c", LOG_A_RUN, cwd=tmp_path)
    listed = run(clean_python.with_name("tracelet"), "runs", "--json", cwd=tmp_path)
    assert ["first"] == [entry["name"] for entry in json.loads(listed)]

    installed = json.loads(run(clean_python, "-m", "pip", "list", "--format=json", cwd=tmp_path))
    frameworks = {"torch", "lightning", "transformers", "keras", "jax", "flax", "mlflow", "wandb", "pandas"}
    assert {"tracelet"} == {entry["name"] for entry in installed} & {"tracelet", *frameworks}
