"""Optional packages: import one when a feature needs it, or see what is missing without importing anything.

Called on any thread. `missing` comes first, when a plug-in is about to be used; `require` inside the function that
needs the package, so that `import tracelet` loads none. The guarantee: a package that is not there gives a
`MissingDependencyError` with the line to type, and a package that is there but broken gives its own error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, NamespaceLoader
from types import ModuleType

from packaging.requirements import InvalidRequirement, Requirement

from tracelet.errors import MissingDependencyError, PluginContractError

_EXTRAS = {
    "PIL": "media",
    "accelerate": "hf",
    "aimrocks": "aim",
    "clearml": "clearml",
    "docker": "docker",
    "flax": "flax",
    "git": "git",
    "jax": "flax",
    "keras": "keras",
    "lightning": "lightning",
    "matplotlib": "media",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "optax": "flax",
    "pandas": "parquet",
    "plotly": "ui",
    "psutil": "system",
    "pyarrow": "parquet",
    "pynvml": "gpu",
    "safetensors": "models",
    "starlette": "ui",
    "transformers": "hf",
    "tsdownsample": "ui",
    "uvicorn": "ui",
    "wandb": "wandb",
}
"""Which extra of Tracelet's brings a module."""

_DISTRIBUTIONS = {"yaml": "pyyaml"}
"""What pip calls a module that no extra brings, where the two names differ."""


def require(module: str, feature: str, extra: str | None = None) -> ModuleType:
    """Import a package that a feature needs.

    Args:
        module: What to import; a submodule with dots is fine.
        feature: Who needs it, as the start of a sentence: `The Neptune backend`.
        extra: The extra of Tracelet's that installs it. Without one the known extras are asked, then pip's own name.

    Raises:
        MissingDependencyError: It is not installed, and the text has the `pip install` line; or it is installed and
            its import fails, and the text names the real error, which is also the cause.
    """
    package = module.partition(".")[0]
    cause: Exception | None = None
    try:
        importlib.import_module(package)  # first, so that the error names the one that is missing
        imported = importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  # a package may raise anything at its import: OSError for a library
        installed = not (isinstance(error, ModuleNotFoundError) and error.name == package)
        cause = error
    else:
        if module != package or not _is_bare_directory(_spec(imported)):
            return imported
        installed = False
    if installed:
        raise MissingDependencyError(
            f"{feature} needs the package {package!r}, which is installed but cannot be imported: "
            f"{type(cause).__name__}: {cause}"
        ) from cause
    extra = extra or _EXTRAS.get(package)
    target = f"'tracelet[{extra}]'" if extra else _DISTRIBUTIONS.get(package, package)
    raise MissingDependencyError(
        f"{feature} needs the package {package!r}, which is not installed. Install it with: pip install {target}"
    ) from cause


def missing(requirements: Sequence[str]) -> list[str]:
    """Which of these requirements are not met. Imports none of them.

    A requirement is met by an installed distribution of that name, or by an importable top-level module of that name,
    if its version fits. A module without any distribution has no version to compare and is taken as it is.

    Args:
        requirements: In pip's notation: `neptune`, `mlflow>=3`, `docker; sys_platform == "linux"`.

    Returns:
        The unmet ones as they were written, in their order.

    Raises:
        PluginContractError: A text is no requirement.
    """
    return [text for text in requirements if not _is_met(text)]


def _is_met(text: str) -> bool:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise PluginContractError(
            f"the dependency {text!r} is no requirement as pip writes it ('mlflow', 'mlflow>=3'): {error}"
        ) from error
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    distributions: Iterable[str] = [requirement.name]
    if not _installed_versions(distributions):
        if not _is_importable(requirement.name):
            return False
        if not requirement.specifier:
            return True
        # Only here, since it reads the metadata of every installed package: a module that pip knows by another name.
        distributions = importlib.metadata.packages_distributions().get(requirement.name, [])
    versions = _installed_versions(distributions)
    return not versions or any(requirement.specifier.contains(version, prereleases=True) for version in versions)


def _installed_versions(distributions: Iterable[str]) -> list[str]:
    versions = []
    for name in distributions:
        try:
            versions.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _is_importable(name: str) -> bool:
    if name in sys.modules:  # `find_spec` refuses a loaded module without a spec, such as a test's fake
        loaded: ModuleType | None = sys.modules[name]
        return loaded is not None and not _is_bare_directory(_spec(loaded))
    if not name.isidentifier():  # with a dot in it, `find_spec` would import the parent
        return False
    spec = importlib.util.find_spec(name)
    return spec is not None and not _is_bare_directory(spec)


def _spec(module: ModuleType) -> ModuleSpec | None:
    return getattr(module, "__spec__", None)  # a fake made of `MagicMock` has none


def _is_bare_directory(spec: ModuleSpec | None) -> bool:
    """Whether a "module" is only a folder of that name on the path, such as the `wandb/` that W&B leaves behind."""
    return spec is not None and (spec.loader is None or isinstance(spec.loader, NamespaceLoader))
