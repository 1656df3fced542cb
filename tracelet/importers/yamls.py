"""Reads small YAML files of other trackers, with the safe loader alone. On the thread that imports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tracelet.utils.imports import require
from tracelet.utils.values import flatten

logger = logging.getLogger(__name__)

_LARGEST_BYTES: Final = 16 << 20


def load(path: Path) -> Any:
    """What is in it; None where it is missing, too large or can't be read.

    Raises:
        MissingDependencyError: PyYAML is not installed.
    """
    yaml = require("yaml", "Importing a YAML file", "import")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return yaml.load(file.read(_LARGEST_BYTES), Loader=_tolerant(yaml))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        logger.warning("%s is left out: %s", path, error)
        return None


def parameters(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a mapping, nested names joined with `/`."""
    found = load(path)
    if isinstance(found, dict):
        yield from flatten(found)


def _tolerant(yaml: Any) -> Any:
    """A safe loader that gives a tag of Python's own as the plain value under it, in place of making an object."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # The package has no types.
        pass

    def plain(loader: Any, _suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", plain)
    return Loader
