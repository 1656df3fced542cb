"""What a model predicts for some samples, as tables and images. Keras calls it on the thread that trains.

Guarantee: a fault in here, or in predicting, is logged once and stops no training. Predicting takes its time: that is
what a user asks for with this callback, and the times that `TraceletCallback` records leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np

from tracelet.errors import UsageError
from tracelet.utils.guarding import safely
from tracelet_keras import facts
from tracelet_keras.callback import TraceletCallback
from tracelet_keras.guarding import GuardedCallback
from tracelet_keras.recording import experiment_of


@final
class TraceletPredictions(GuardedCallback):
    """Records predictions for a few samples after an epoch: `TraceletPredictions(x_val[:16], y_val[:16])`.

    The table `val/predictions` has a row for each sample. Of a classifier, that is an output of several numbers where
    the target is one integer, it has the class with the highest output, and that output as `score`.
    """

    async_safe = True  # It has no hook for batches.

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        every: int = 1,
        images: Any = None,
        class_names: Sequence[str] | None = None,
        callback: TraceletCallback | None = None,
    ) -> None:
        """Prepare.

        Args:
            x: The samples, as `model.predict_on_batch` takes them.
            y: Their targets; a dict or list where the model has several outputs.
            every: Record after so many epochs.
            images: An image of each sample to record with its prediction: arrays (H, W), (H, W, C) or (C, H, W).
            class_names: Names of the classes, for the table.
            callback: Whose run gets them. None: that of the experiment that was started last.

        Raises:
            UsageError: `every` is no positive number.
        """
        super().__init__()
        if every < 1:
            raise UsageError(f"every is a number of epochs, 1 or more, not {every!r}")
        self._x, self._targets, self._images = x, _named(y), images
        self._every, self._class_names, self._callback = every, class_names, callback

    @safely
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Predict, and record."""
        experiment = experiment_of(self._callback)
        if experiment is None or (epoch + 1) % self._every:
            return
        model = self.model
        step = facts.steps_taken(model)
        outputs = model.predict_on_batch(self._x)  # `predict` draws from torch's random numbers, as any loader does.
        columns = dict(self._columns(_named(outputs)))
        experiment.log_table("val/predictions", columns, step)
        for index, image in enumerate(() if self._images is None else self._images):
            caption = ", ".join(f"{name} {values[index]}" for name, values in columns.items() if name != "sample")
            experiment.log_image(f"val/predictions/{index}", image, step, caption)

    def _columns(self, outputs: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
        yield "sample", list(range(len(next(iter(outputs.values())))))
        for name, output in outputs.items():
            level, numbers = f"{name}/" if name else "", np.asarray(output)
            target = np.squeeze(np.asarray(self._targets[name])) if name in self._targets else None
            is_class = target is None or (target.ndim == 1 and target.dtype.kind in "iu")
            is_classifier = numbers.ndim == 2 and numbers.shape[1] > 1 and is_class
            if target is not None:
                yield f"{level}target", self._labels(target) if is_classifier else target.tolist()
            if is_classifier:
                yield f"{level}prediction", self._labels(numbers.argmax(axis=1))
                yield f"{level}score", numbers.max(axis=1).tolist()
            else:
                yield f"{level}prediction", (numbers[:, 0] if numbers.shape[1:] == (1,) else numbers).tolist()

    def _labels(self, classes: np.ndarray[Any, Any]) -> list[Any]:
        names = self._class_names
        return classes.tolist() if names is None else [names[index] for index in classes.tolist()]


def _named(values: Any) -> dict[str, Any]:
    """One array, or those of several outputs, by name."""
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, (list, tuple)) and len(values) and np.ndim(values[0]):
        return {str(index): value for index, value in enumerate(values)}
    return {} if values is None else {"": values}
