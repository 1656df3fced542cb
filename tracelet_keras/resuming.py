"""Which run a checkpoint of Keras's is from: a small file in its directory, or beside its file, says so.

Keras's own formats have no place for it. Called on the thread that trains: read before the run begins, written as a
training begins and with each checkpoint of ours. Guarantee: the checkpoint itself is not touched.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet.core.experiment import Experiment
from tracelet.journal.directory import write_atomically
from tracelet_keras import facts

logger = logging.getLogger(__name__)

_FILE: Final = "tracelet.json"
_BACKUP: Final = "training_metadata.json"  # What `BackupAndRestore` reads its epoch from.
_FORMATS: Final = (".keras", ".h5")  # All others are directories.


def saved_run(checkpoint: Path, model: keras.Model | None) -> Mapping[str, Any] | None:
    """The run that a checkpoint is from; None where the training does not go on from it.

    Args:
        checkpoint: A file, or a directory.
        model: What is trained. Unless it is restored later, by `BackupAndRestore`, it has been trained already.
    """
    if not os.path.exists(checkpoint / _BACKUP) and not facts.steps_taken(model):
        return None
    file = _file_of(checkpoint)
    try:
        saved = json.loads(file.read_bytes())
        return {name: saved[name] for name in ("run_id", "project", "dir")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s does not say which run the checkpoint is from, this one is new: %r", file, error)
        return None


def note_run(checkpoint: Path, experiment: Experiment) -> None:
    """Say which run a checkpoint is from.

    Raises:
        OSError: The place can't be written to.
    """
    file = _file_of(checkpoint)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(experiment.resume_state()) + "\n")


def is_file(checkpoint: Path) -> bool:
    """Whether it is a file of Keras's, also before it is there."""
    return checkpoint.suffix in _FORMATS


def _file_of(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.{_FILE}") if is_file(checkpoint) else checkpoint / _FILE
