"""What an importer is: a plug-in that reads the runs of another tracker, as a stream.

Called by `tracelet import` on the main thread: `validate_config`, `initialize`, `runs(source)`, and of each run
`records()`, to its end, maybe more than once. An importer only reads; `importers.writing` writes what it yields.

Guarantee asked of it: the same source gives the same runs with the same keys, and the points of each series, and the
records of each other name, in the same order. A source that has grown gives more of them at the end; where it is of
several files that grow, each of them does, and what it holds names it as `source`. So what a run holds already is known
by counting, and a second import adds only what is new.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from tracelet.core.plugins import IMPORTER_GROUP, FoundPlugin, ManagedPlugin, PluginBase, PluginManager
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import PluginContractError, PluginNotFoundError, SettingsError
from tracelet.utils.text import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@final
@dataclass(frozen=True, slots=True)
class Points:
    """Points of some series, a row each, in the order in which they were logged. All four arrays have the shape (n,).

    Attributes:
        names: The series.
        places: intp; which of `names` a row belongs to.
        steps: int64.
        values: float64.
        times_ns: int64, Unix time in nanoseconds.
        type: SCALAR or SYSTEM, of all of them.
        source: The part of the source that they are from, if they are to be counted for themselves.
    """

    names: Sequence[str]
    places: NDArray[np.intp]
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times_ns: NDArray[np.int64]
    type: MetricType = MetricType.SCALAR
    source: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Omitted:
    """Something that can't be carried over. Equal ones are counted.

    Attributes:
        what: What it is: `the graph of the model`, `a record of the type 'pr_curves'`.
        reason: Why.
    """

    what: str
    reason: str


Item = Points | MetricData | Omitted
"""An image, a sound or a film is a MetricData with the encoded bytes or a path as value, an artifact one with a path,
a tag, the status and the description CUSTOM ones, with the names of `tracelet.core.records`."""


@final
@dataclass(frozen=True, slots=True)
class SourceRun:
    """A run of another tracker.

    Attributes:
        key: What identifies it for good among all runs of this kind: the tracker's own id, or a path.
        name: For people.
        records: Reads it, from its beginning.
        project: The tracker's own; None where it has none.
        created_s: Unix time in seconds; None where the tracker does not say so.
    """

    key: str
    name: str
    records: Callable[[], Iterator[Item]]
    project: str | None = None
    created_s: float | None = None


class ImporterPlugin(PluginBase):
    """Reads the runs of another tracker. Only `get_metadata` and `runs` have to be given."""

    options: ClassVar[Mapping[str, str]] = {}
    """The settings that it takes, by name, with a line of help each."""

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Refuse settings that it does not have.

        Raises:
            SettingsError: It does not have them.
        """
        for name in config.keys() - cls.options.keys():
            known = ", ".join(cls.options) or "none"
            raise SettingsError(f"`tracelet import {cls.get_metadata().name}` has no option {name!r}. It has: {known}")

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        self._config = config

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""

    def get_status(self) -> dict[str, Any]:
        """Nothing to say."""
        return {}

    @abstractmethod
    def runs(self, source: str) -> Iterator[SourceRun]:
        """The runs that a path or URI holds.

        Raises:
            UsageError: It holds none, or is not there.
        """


def find_importer(name: str, config: Mapping[str, Any]) -> ImporterPlugin:
    """The installed importer of this name, initialised; one of another package wins over ours.

    Raises:
        PluginNotFoundError: There is none; the text names near ones.
        MissingDependencyError: A package that it needs is not installed.
        PluginContractError, PluginError: It is no importer, or can't be loaded.
        SettingsError: It does not take this configuration.
    """
    installed: dict[str, FoundPlugin] = {}
    for found in PluginManager.installed():
        if found.group == IMPORTER_GROUP and (found.name not in installed or not _is_ours(found)):
            installed[found.name] = found
    if name not in installed:
        raise PluginNotFoundError(
            f"nothing imports {name!r}{did_you_mean(name, installed)}. These can be imported: "
            f"{', '.join(sorted(installed))}"
        )
    managed = ManagedPlugin(installed[name].load(), config)
    if not isinstance(managed.plugin, ImporterPlugin):
        raise PluginContractError(f"the plug-in {name!r} of {installed[name].package} is no ImporterPlugin")
    managed.check_dependencies()
    managed.plugin.validate_config(config)
    managed.initialize({})
    return managed.plugin


def _is_ours(found: FoundPlugin) -> bool:
    return found.package.startswith("tracelet ")
