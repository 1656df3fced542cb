"""What goes into the configuration of a run of W&B's. In the SDK's process, on its main thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from tracelet.backends._wandb import mapping

_MAX_ORIGINALS: Final = 1_000  # Entries that say what a changed name was.


@final
class Configuration:
    """Gathers entries, to send them together."""

    def __init__(self, run: Any) -> None:
        """`run` is the SDK's."""
        self._run = run
        self._changed: dict[str, Any] = {}
        self._originals: set[str] = set()

    def update(self, entries: Mapping[str, Any]) -> None:
        """Take entries; the last value of a key counts."""
        self._changed.update(entries)

    def key(self, name: str) -> str:
        """The key of a series or parameter; where it is not its name, that is noted."""
        key = mapping.series_key(name)
        if key != name and key not in self._originals and len(self._originals) < _MAX_ORIGINALS:
            self._originals.add(key)
            self._changed[mapping.ORIGINAL_PREFIX + key] = name
        return key

    def send(self) -> bool:
        """Hand over what has changed; whether something had."""
        changed, self._changed = self._changed, {}
        if changed:
            self._run.config.update(changed, allow_val_change=True)
        return bool(changed)
