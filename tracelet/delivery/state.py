"""What a backend remembers of a run on its tracker: the remote id above all. Called on the backend's thread only.

Kept in `delivery/<backend>/state.json` of the run, so that a run that is started again, and `tracelet sync` a month
later, go on with the same remote run. Guarantee: a reader, or a kill in between, sees the old values or the new ones.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from tracelet.journal.directory import make_private_directory, write_atomically

logger = logging.getLogger(__name__)

STATE_FILE: Final = "state.json"


@final
class RemoteState:
    """JSON-like values by name."""

    def __init__(self, state_dir: str | os.PathLike[str]) -> None:
        """Read what was kept before.

        Args:
            state_dir: The directory that `initialize` is given.
        """
        self._file = Path(state_dir, STATE_FILE)
        self._values: dict[str, Any] = {}
        try:
            found = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("%s can't be read, and is begun anew: %s", self._file, error)
            return
        if isinstance(found, dict):
            self._values = found

    def __getitem__(self, name: str) -> Any:
        """A value; None where there is none."""
        return self._values.get(name)

    def update(self, values: Mapping[str, Any]) -> None:
        """Keep values; they are on the disk when this returns.

        Raises:
            OSError: The disk does not take them. Delivery takes that for an outage, and tries again: a remote id that
                is not kept would be a second remote run after the next start.
        """
        merged = {**self._values, **values}
        if merged != self._values:
            make_private_directory(self._file.parent)
            write_atomically(self._file, json.dumps(merged, indent=1) + "\n")
            self._values = merged
