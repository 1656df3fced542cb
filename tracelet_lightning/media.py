"""The logger's helpers for everything but metrics. Called by users, on any thread of any rank; rank zero records.

Guarantee: as the methods of the same names of `Experiment`, which they hand over to.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from tracelet.core.experiment import Experiment
from tracelet.errors import UsageError
from tracelet.journal.artifacts import Artifact


class MediaHelpers(ABC):
    """What a logger offers besides Lightning's contract.

    A `step` of None: the experiment's current iteration if there is one, else the series counts by itself. Where a list
    is given in place of one image, sound or film, each one is recorded, as `key/0`, `key/1` and so on.
    """

    _prefix: str

    @property
    @abstractmethod
    def _recorder(self) -> Experiment:
        """Where records go, running; on all ranks but zero, what takes every call and does nothing."""

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Record a text."""
        self._recorder.log_text(self._prefix + key, text, step)

    def log_image(
        self, key: str, images: Any, step: int | None = None, caption: str | Sequence[str] | None = None
    ) -> None:
        """Record an image or a list of images: arrays, PIL images, encoded bytes or paths.

        Args:
            key: The name.
            images: One or a list.
            step: See the class.
            caption: One for all, or a list with one for each.

        Raises:
            UsageError: There are more or fewer captions than images.
        """
        named = self._each(key, images)
        captions = [caption] * len(named) if caption is None or isinstance(caption, str) else list(caption)
        if len(captions) != len(named):
            raise UsageError(f"log_image({key!r}): there are {len(named)} images, but {len(captions)} captions")
        for (name, image), text in zip(named, captions, strict=True):
            self._recorder.log_image(name, image, step, text)

    def log_audio(self, key: str, audios: Any, step: int | None = None, sample_rate_hz: int = 44_100) -> None:
        """Record a sound or a list of sounds: samples, encoded bytes or paths."""
        for name, audio in self._each(key, audios):
            self._recorder.log_audio(name, audio, step, sample_rate_hz)

    def log_video(self, key: str, videos: Any, step: int | None = None, frames_per_s: float = 4.0) -> None:
        """Record a film or a list of films: frames of shape (T, H, W, C) or (T, C, H, W), encoded bytes or paths."""
        for name, video in self._each(key, videos):
            self._recorder.log_video(name, video, step, frames_per_s)

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Record a figure of matplotlib or plotly, or a path of one."""
        self._recorder.log_figure(self._prefix + key, figure, step)

    def log_histogram(self, key: str, values: Any, step: int | None = None, bins: int = 64) -> None:
        """Record the distribution of an array's elements, or a ready `(counts, edges)` as of `numpy.histogram`."""
        self._recorder.log_histogram(self._prefix + key, values, step, bins)

    def log_table(
        self,
        key: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Record a table: `columns` and `data`, its rows; or a pandas frame."""
        self._recorder.log_table(self._prefix + key, dataframe, step, columns=columns, rows=data)

    def log_artifact(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,
        aliases: str | Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Keep a file or directory with the run, as the next version of an artifact.

        Raises:
            UsageError: There is nothing at `path`, or an alias is none.
        """
        self._recorder.log_artifact(path, name, type, aliases=aliases, metadata=metadata, iteration=step)

    def use_artifact(self, artifact: str | Artifact, run: str | None = None) -> Artifact:
        """Record that this run reads an artifact, and find it; as `Experiment.use_artifact`. On rank zero alone.

        Raises:
            RunNotFoundError, ArtifactNotFoundError: There is none.
        """
        return self._recorder.use_artifact(artifact, run)

    def _each(self, key: str, values: Any) -> list[tuple[str, Any]]:
        if not isinstance(values, (list, tuple)):
            return [(self._prefix + key, values)]
        return [(f"{self._prefix}{key}/{index}", value) for index, value in enumerate(values)]
