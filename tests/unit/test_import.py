from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tracelet

HEAVY = {
    "numpy", "pydantic", "pydantic_settings", "torch", "lightning", "rich", "typer", "plotext", "pandas", "matplotlib",
    "PIL", "mlflow", "wandb", "clearml", "neptune", "git", "docker", "psutil", "jax", "flax", "keras", "transformers",
    "pyarrow",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "" == run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_tracelet_loads_no_other_module_of_it_and_nothing_heavy():
    loaded = modules_after("import tracelet; dir(tracelet)")
    assert {"tracelet"} == {name for name in loaded if name.startswith("tracelet")}
    assert set() == loaded & HEAVY


def test_taking_every_public_name_but_the_settings_loads_nothing_heavy():
    code = "import tracelet\nfor name in tracelet.__all__:\n    if name != 'TraceletSettings': getattr(tracelet, name)"
    assert set() == modules_after(code) & HEAVY


def test_a_run_loads_no_numpy_and_no_console():
    code = "import tracelet\nwith tracelet.Experiment('e', config={'a': 1}) as e: e.log_metrics({'a': 1.0, 'b': 2}, 1)"
    assert {"pydantic", "pydantic_settings"} == modules_after(code) & HEAVY


@pytest.mark.parametrize("name", tracelet.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    assert getattr(tracelet, name).__doc__


def test_public_names_are_listed():
    assert sorted(tracelet.__all__) == tracelet.__all__
    assert set(tracelet.__all__) <= set(dir(tracelet))
    assert sorted(dir(tracelet)) == dir(tracelet)
    assert {"__version__", "__doc__"} <= set(dir(tracelet))


def test_a_name_that_does_not_exist_raises():
    with pytest.raises(AttributeError, match="'tracelet' has no attribute 'Experimint'"):
        tracelet.Experimint  # noqa: B018  It is the access that raises.
    with pytest.raises(ImportError):
        from tracelet import Experimint  # noqa: F401 - it can't be imported
