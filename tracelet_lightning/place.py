"""What a logger is called and where it is, for Lightning: it makes directories of the names, on any rank.

Guarantee: reading these creates nothing.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from tracelet.core.experiment import Experiment
from tracelet.utils.names import safe_directory_name

_FILE_NAME: Final = re.compile(r"(?!\.{1,2}$)[^/\\\0\ud800-\udfff]{1,60}")


class Place(ABC):
    """See the module docstring."""

    @property
    @abstractmethod
    def _latest(self) -> Experiment:
        """The experiment as it is: not begun, running or stopped."""

    @property
    def name(self) -> str:
        """The run's name, in a form that can name a directory."""
        return _file_name(self._latest.name)

    @property
    def version(self) -> str:
        """The run id, in the same form."""
        return _file_name(self._latest.run_id)

    @property
    def root_dir(self) -> str:
        """The project's directory."""
        return os.fspath(self._latest.run_dir.parent)

    @property
    def log_dir(self) -> str:
        """The run directory."""
        return os.fspath(self._latest.run_dir)

    @property
    def save_dir(self) -> str | None:
        """The run directory: there Lightning puts checkpoints, and LightningCLI its configuration.

        None where it can't be written: then Lightning takes the trainer's `default_root_dir`.
        """
        return self.log_dir if _can_be_written(self._latest.run_dir) else None

    @property
    def group_separator(self) -> str:
        """Divides the levels of a name."""
        return "/"


def _file_name(name: str) -> str:
    """The name if a directory can have it, else its escaped form: Lightning makes directories of names."""
    return name if _FILE_NAME.fullmatch(name) else safe_directory_name(name)


def _can_be_written(directory: Path) -> bool:
    """Whether the directory is there or can be made, and takes files."""
    nearest = next(place for place in (directory, *directory.parents) if os.path.exists(place))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
