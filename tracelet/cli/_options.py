"""The options that several commands share, and what they mean. On the main thread."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracelet.journal.load import Run, find_run

DirOption = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Directory that holds the runs.  [default: the setting `dir`]"),
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", metavar="NAME", help="Only this project.  [default: all]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllAttemptsOption = Annotated[
    bool, typer.Option("--all-attempts", help="Also the steps that a resumed run has recorded again, by attempt.")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="An id, the beginning of one, a name, a path, or `latest`.")
]


def runs_directory(given: Path | None) -> Path:
    """The directory of the runs: as given, else the setting `dir`.

    Raises:
        SettingsError: The settings are wrong.
    """
    if given is not None:
        return given.expanduser()
    from tracelet.settings import TraceletSettings  # It imports pydantic, 0.2 s.

    return TraceletSettings.load().dir


def open_run(reference: str, directory: Path | None, project: str | None) -> Run:
    """The run that a command-line argument means.

    Raises:
        RunNotFoundError: No run answers to it, or several do.
        CorruptJournalError: It is a path, and what is there can't be read.
    """
    return find_run(reference, runs_directory(directory), project)
