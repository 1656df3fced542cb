"""`log_model`: a model in its framework's safe format, as an artifact. On the user's thread.

It is saved inside the run directory, so that what is large is linked to its place and not copied again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracelet.core.intake import check_name
from tracelet.core.recorder import Recorder
from tracelet.journal.artifacts import Artifact
from tracelet.journal.directory import RunDirectory

if TYPE_CHECKING:
    from tracelet.models.format import ModelFormat
    from tracelet.settings import TraceletSettings

logger = logging.getLogger(__name__)


class ModelRecorder(Recorder):
    """See the module docstring. `Experiment` adds the life cycle."""

    _run: RunDirectory
    _settings: TraceletSettings

    def log_model(
        self,
        model: Any,
        name: str,
        *,
        aliases: str | Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        iteration: int | None = None,
        input_example: Any = None,
        output_example: Any = None,
        config: Mapping[str, Any] | None = None,
        processor: Any = None,
        model_format: ModelFormat | None = None,
    ) -> Artifact | None:
        """Keep a model in its framework's own safe format, with the code to load it again.

        Args:
            model: Of torch, Lightning, transformers, PEFT, Keras or Flax; a state dict, a TrainState, a tree of arrays.
            name: What is logged under the same name is its next version.
            aliases: Words such as `best`, that move here from other versions of the name.
            metadata: Anything that belongs to it; JSON-like.
            iteration: The step.
            input_example: What the model is called with: its shapes and types are kept, and its arrays up to 16 MiB.
            output_example: What the model gave for it: shapes and types. The model is never run for it.
            config: What the model's class is called with, where the framework does not know. JSON-like.
            processor: transformers: the tokenizer or processor to keep with the model.
            model_format: A format of your own, for a framework that Tracelet does not know.

        Returns:
            The artifact, of the type `model`; None where the disk did not take it, which the log tells.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
            UsageError: There is no safe format for it, or it can't be saved in it; the text says why.
            MissingDependencyError: The format's package is not installed.
        """
        self._require_running()
        check_name(name)
        from tracelet.models.saving import save_model

        if self._settings.disabled:
            return None
        try:
            with tempfile.TemporaryDirectory(prefix="model-", dir=self._run.path, ignore_cleanup_errors=True) as place:
                card = save_model(
                    model,
                    Path(place),
                    input_example=input_example,
                    output_example=output_example,
                    config=config,
                    processor=processor,
                    model_format=model_format,
                    redactor=self._settings.redactor(),
                )
                facts = {key: card[key] for key in ("framework", "class", "versions", "parameters", "signature")}
                return self.log_artifact(
                    place, name, "model", aliases=aliases, metadata={**facts, **(metadata or {})}, iteration=iteration
                )
        except OSError as error:
            logger.warning("the model %.200r can't be kept: %s", name, error)
            return None
