"""Collects what a training runs in: Python, platform, packages, command line, variables, job, versions of CUDA, output.

Every call comes on the thread `tracelet-environment`; `_environment.console` tells about the output. The first reading
has all facts. Later ones have what a framework says that was loaded meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final, final

from pydantic import Field

from tracelet.collectors._base import CollectorSettings, Sources, facts
from tracelet.collectors._environment.console import ConsoleCapture, ConsoleMode
from tracelet.collectors._environment.frameworks import TELLERS, framework_facts, is_loaded, package_facts
from tracelet.collectors._environment.machine import (
    command_facts,
    job_facts,
    platform_facts,
    python_facts,
    variable_facts,
)
from tracelet.collectors._environment.packages import requirements
from tracelet.core.plugins import CollectorPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.utils.redaction import Redactor

_SOURCE: Final = "environment_collector"


@final
class EnvironmentSettings(CollectorSettings):
    """What can be set.

    Attributes:
        variables: Names of environment variables to record besides the known ones; `*` stands for any characters.
        packages: Whether the list of installed packages is kept.
        console: Whether what the program prints is recorded: `auto`, `always` (in a container, too), `off`.
        max_console_chars: Of what one place (standard output, standard error) gets.
    """

    variables: tuple[str, ...] = ()
    packages: bool = True
    console: ConsoleMode = "auto"
    max_console_chars: Annotated[int, Field(ge=0)] = 4_000_000


@final
class EnvironmentCollector(CollectorPlugin):
    """Collects parameters `env/…`, the artifact `environment/requirements.txt`, and the texts `console/…`."""

    def __init__(self) -> None:
        self._settings = EnvironmentSettings()
        self._program: str | None = None
        self._run_dir: Path | None = None
        self._redactor = Redactor()
        self._sources = Sources("environment")
        self._open = ExitStack()
        self._console: ConsoleCapture | None = None
        self._told: set[str] = set()

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs nothing."""
        return PluginMetadata(
            name="environment",
            version="1.0.0",
            type=PluginType.COLLECTOR,
            description="Python, platform, packages, command line, variables, job, CUDA, output",
            author="Tracelet",
            capabilities={"environment", "packages", "console"},
        )

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings.

        Raises:
            SettingsError: They are wrong.
        """
        self._settings = EnvironmentSettings.parse("environment", config)
        self._program, self._run_dir = config.get("run_program"), config.get("run_dir")
        self._redactor = config.get("run_redactor", self._redactor)

    def start(self) -> None:
        """Begin to record the output."""
        self.stop()
        self._active = True
        self._told.clear()
        self._sources.read("the console", self._start_console)

    def stop(self) -> None:
        """Give the output back, and remove the scratch files."""
        self._active = False
        console, self._console = self._console, None
        if console is not None:
            console.stop()
        self._open.close()

    def get_status(self) -> dict[str, Any]:
        """What of the output is recorded, and what has failed."""
        console = {} if self._console is None else self._console.get_status()
        return {"active": self._active, "console": console, "failed": self._sources.failed}

    def collect(self) -> Sequence[MetricData]:
        """What has not been told yet."""
        if not self._active:
            return []
        self._open.close()  # The run has its own link to what an earlier reading gave.
        is_first = not self._told
        found: list[tuple[str, Any]] = []
        if is_first:
            found += self._sources.read("Python", python_facts)
            found += self._sources.read("the platform", platform_facts)
            found += self._sources.read("the command", command_facts, self._program, self._redactor)
            found += self._sources.read("the variables", variable_facts, self._settings.variables, os.environ)
            found += self._sources.read("the job", job_facts, os.environ)
        found += self._sources.read("the versions", package_facts, self._told)
        for module in filter(is_loaded, TELLERS):
            if not any(name.startswith(f"{module}/") for name in self._told):
                found += self._sources.read(module, framework_facts, module)
        self._told.update(name for name, _ in found)
        records = facts(_SOURCE, found)
        if is_first and self._settings.packages:
            records += self._sources.read("the packages", self._packages)
        return records

    def _start_console(self) -> Iterable[None]:
        if self._run_dir is not None:
            console = ConsoleCapture(
                self._run_dir, self._settings.console, self._settings.max_console_chars, self._redactor
            )
            console.start()
            self._console = console
        return ()

    def _packages(self) -> Iterator[MetricData]:
        scratch = self._open.enter_context(tempfile.TemporaryDirectory(prefix=".environment-", dir=self._run_dir))
        file = Path(scratch) / "requirements.txt"
        text = "\n".join(requirements(sys.path, self._redactor))
        file.write_text(f"{text}\n", encoding="utf-8")
        details = {"type": "environment"}
        yield MetricData("environment/requirements.txt", file, MetricType.ARTIFACT, source=_SOURCE, metadata=details)
