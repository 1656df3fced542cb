"""The rules of the source tree, checked: the layers of docs/architecture.md, sizes, and where imports may stand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("tracelet", "tracelet_lightning", "tracelet_hf", "tracelet_keras")
    for path in sorted((ROOT / package).rglob("*.py"))
}

# From the bottom up: an import may point to the same or a lower layer. A module belongs to its longest prefix here.
LAYERS = [
    {"tracelet.errors", "tracelet.core.records", "tracelet.core.changes", "tracelet.core.alerts"},
    {"tracelet.settings", "tracelet.utils"},
    {"tracelet.journal"},
    {"tracelet.core.plugins", "tracelet.core.plugin_facts", "tracelet.core.plugin_settings", "tracelet.core.importer"},
    {"tracelet.delivery"},
    {
        "tracelet.core.orchestrator",
        "tracelet.core.alerting",
        "tracelet.core.intake",
        "tracelet.core.collecting",
        "tracelet.core.draining",
        "tracelet.core.hashing",
        "tracelet.core.sidecar",
        "tracelet.core.sidecar_main",
        "tracelet.core.sync",
        "tracelet.core.planning",
        "tracelet.core.pruning",
        "tracelet.core.archiving",
        "tracelet.core.foreseeing",
        "tracelet.core.verify",
    },
    {"tracelet.backends", "tracelet.collectors", "tracelet.importers", "tracelet.processors", "tracelet.testing"},
    {
        "tracelet.core.experiment",
        "tracelet.core.keeping",
        "tracelet.core.ranks",
        "tracelet.core.recorder",
        "tracelet.core.arguments",
        "tracelet.core.resuming",
        "tracelet.core.active",
        "tracelet.models",
        "tracelet",
    },
    {"tracelet_lightning", "tracelet_hf", "tracelet_keras", "tracelet.frameworks", "tracelet.cli", "tracelet.ui"},
]

# Packages that an import statement outside of a function may name only in the package beside it, or nowhere.
OPTIONAL = {
    "lightning": "tracelet_lightning",
    "lightning_utilities": "tracelet_lightning",
    "pytorch_lightning": "tracelet_lightning",
    "torch": "tracelet_lightning",
    "accelerate": "tracelet_hf",
    "transformers": "tracelet_hf",
    "keras": "tracelet_keras",
    **dict.fromkeys(["jax", "flax", "optax"], "tracelet.frameworks._jax"),
    **dict.fromkeys(["starlette", "uvicorn", "plotly", "tsdownsample"], "tracelet.ui"),
    **dict.fromkeys(["mlflow", "wandb", "clearml", "neptune", "docker", "git", "psutil", "peft", "safetensors"]),
    **dict.fromkeys(["aim", "aimrocks", "pynvml", "matplotlib", "pandas", "PIL", "pyarrow"]),
}


def layer(module: str) -> int:
    places = {name: index for index, names in enumerate(LAYERS) for name in names}
    return places[max((name for name in places if f"{module}.".startswith(f"{name}.")), key=len)]


def imports(node: ast.AST, *, in_functions: bool) -> Iterator[str]:
    """What the code imports when it runs, so without the blocks under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                yield from (alias.name for alias in child.names)
            case ast.ImportFrom(module=module, level=level):
                full_names = [f"{module}.{alias.name}" for alias in child.names]
                yield from ("." * level + (name if name in MODULES else str(module)) for name in full_names)
            case ast.If(test=test) if "TYPE_CHECKING" in ast.unparse(test):
                yield from imports(ast.Module(child.orelse), in_functions=in_functions)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not in_functions:
                pass
            case _:
                yield from imports(child, in_functions=in_functions)


def imports_of(path: Path, *, in_functions: bool = True) -> set[str]:
    return set(imports(ast.parse(path.read_text()), in_functions=in_functions))


def test_every_module_has_its_layer():
    named = tuple(f"{name}." for names in LAYERS for name in names - {"tracelet"})
    homeless = [name for name in MODULES if not f"{name}.".startswith(named)]
    assert {"tracelet", "tracelet.core"} >= set(homeless)


def test_imports_point_downwards():
    wrong = [
        f"{module} -> {name}"
        for module, path in MODULES.items()
        for name in imports_of(path)
        if name.startswith("tracelet") and layer(name) > layer(module)
    ]
    assert [] == wrong


def test_imports_are_absolute():
    relative = {module: [name for name in imports_of(path) if name[0] == "."] for module, path in MODULES.items()}
    assert {} == {module: names for module, names in relative.items() if names}


def test_optional_packages_are_imported_in_functions_or_at_home():
    wrong = [
        f"{module}: {name}"
        for module, path in MODULES.items()
        for name in imports_of(path, in_functions=False)
        if (top := name.partition(".")[0]) in OPTIONAL and not f"{module}.".startswith(f"{OPTIONAL[top]}.")
    ]
    assert [] == wrong


def test_importing_tracelet_loads_nothing_heavy():
    code = "import sys, tracelet; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    heavy = {*OPTIONAL, "numpy", "plotext", "pydantic", "pydantic_settings", "rich", "typer"}
    assert set() == heavy & set(loaded.split())


def test_files_are_short():
    limits = dict.fromkeys(["tracelet", "tests", "benchmarks", "docs"], 500) | {"tracelet/backends": 200}
    limits |= dict.fromkeys(["tracelet_lightning", "tracelet_hf", "tracelet_keras"], 250)
    wrong = [
        f"{path}: {lines} lines, of {limit} allowed"
        for folder, limit in limits.items()
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > limit
    ]
    assert [] == wrong


def test_the_library_does_not_print():
    wrong = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [] == wrong


def test_every_module_has_a_docstring():
    assert [] == [module for module, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]


def test_every_silenced_check_names_its_code_and_reason():
    """As in `# noqa: BLE001 - a plug-in may raise anything` and `# type: ignore[misc]  # untyped base class`."""
    good = re.compile(r"# (type: ignore\[[\w, -]+\]|(ruff: )?noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*)[^\w]+\w+ \w+")
    wrong = []
    around = (path for folder in ("tests", "benchmarks", "docs") for path in sorted((ROOT / folder).rglob("*.py")))
    for path in (*MODULES.values(), *around):
        with path.open("rb") as file:
            comments = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
        wrong += [
            f"{path.relative_to(ROOT)}:{comment.start[0]}"
            for comment in comments
            if re.search(r"#\s*(type:\s*ignore|(ruff:\s*)?noqa)", comment.string) and not good.match(comment.string)
        ]
    assert [] == wrong
