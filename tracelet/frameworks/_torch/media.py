"""The methods of `SummaryWriter` for everything but numbers and facts: histograms, media, tensors, tables.

Called by scripts, on any thread. Guarantee: no value raises. What can't be kept in its form is recorded in words.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tracelet.core.experiment import Experiment
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.frameworks._torch.pictures import film, picture, pr_curve, with_boxes
from tracelet.utils.media import (
    Encoded,
    as_array,
    encode_audio,
    encode_figure,
    encode_image,
    encode_tensor,
    histogram,
    table,
)
from tracelet.utils.values import as_text

logger = logging.getLogger(__name__)

_CURVE: Final = ("true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall")
_MAX_THRESHOLDS: Final = 127  # TensorBoard's limit.
_MAX_CELLS: Final = 100_000  # Of an embedding; a larger one is kept as a tensor, since a table would be cut.


class MediaWriter(ABC):
    """See the module docstring. A call without `global_step` is of step 0, as in TensorBoard."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    @abstractmethod
    def _running(self) -> Experiment:
        """Where records go, running."""

    def add_tensor(self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Keep a tensor as a file of NumPy."""
        self._record(tag, MetricType.TENSOR, lambda: encode_tensor(tensor), tensor, global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Record the distribution of an array's elements.

        Args:
            tag: The name.
            values: An array.
            global_step: The step.
            bins: What `numpy.histogram` takes; `"tensorflow"` is 64 bins of equal width.
            walltime: In Unix seconds; None is now.
            max_bins: Neighbouring bins are put together where there are more.
        """

        def make() -> dict[str, Any]:
            import numpy as np

            if isinstance(bins, str) and bins == "tensorflow":
                return histogram(values)
            array = as_array(values).ravel()
            edges_or_count: Any = bins if isinstance(bins, (str, int)) else as_array(bins)
            counts, edges = np.histogram(array[np.isfinite(array)], edges_or_count)
            if max_bins is not None and len(counts) > max_bins:
                firsts = np.arange(0, len(counts), -(-len(counts) // max_bins))
                counts, edges = np.add.reduceat(counts, firsts), np.append(edges[firsts], edges[-1])
            counted = histogram((counts, edges))
            return {**counted, "nan": int(np.isnan(array).sum()), "inf": int(np.isinf(array).sum())}

        self._record(tag, MetricType.HISTOGRAM, make, values, global_step, walltime)

    def add_histogram_raw(
        self,
        tag: str,
        min: float,  # noqa: A002 - named by TensorBoard
        max: float,  # noqa: A002 - named by TensorBoard
        num: int,
        sum: float,  # noqa: A002 - named by TensorBoard
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Record a histogram that is counted already. The first bin begins at `min`, and none ends beyond `max`.

        Raises:
            UsageError: There are not as many limits as counts.
        """
        if len(bucket_limits) != len(bucket_counts):
            raise UsageError(f"add_histogram_raw(): {len(bucket_limits)} limits do not fit {len(bucket_counts)} counts")

        def make() -> dict[str, Any]:
            import numpy as np

            limits = as_array(bucket_limits).astype(np.float64)
            limits[-1] = limits[-1] if limits[-1] < np.finfo(np.float32).max else max  # TensorFlow's last is infinite.
            first = min if min < limits[0] else np.nextafter(limits[0], -np.inf)
            return histogram((as_array(bucket_counts), np.concatenate([[first], limits])))

        facts = {"min": min, "max": max, "num": num, "sum": sum, "sum_squares": sum_squares}
        self._record(tag, MetricType.HISTOGRAM, make, bucket_counts, global_step, walltime, facts)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Record an image whose axes `dataformats` names: floats from 0 to 1, integers from 0 to 255."""
        self._record(
            tag,
            MetricType.IMAGE,
            lambda: encode_image(picture(img_tensor, dataformats)),
            img_tensor,
            global_step,
            walltime,
        )

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Record several images as one: in rows of eight."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        rescale: float = 1,
        dataformats: str = "CHW",
        labels: str | Sequence[str] | None = None,
    ) -> None:
        """Record an image with boxes drawn into it, each (left, top, right, bottom) in pixels."""
        texts = [labels] if isinstance(labels, str) else labels
        details: dict[str, Any] = {}

        def make() -> Encoded:
            boxes = as_array(box_tensor)
            known = None if texts is None or len(texts) != len(boxes) else texts
            details.update(boxes=boxes.tolist(), **({} if known is None else {"labels": list(known)}))
            return with_boxes(picture(img_tensor, dataformats), boxes, known, rescale)

        self._record(tag, MetricType.IMAGE, make, img_tensor, global_step, walltime, details)

    def add_figure(
        self, tag: str, figure: Any, global_step: Any = None, close: bool = True, walltime: float | None = None
    ) -> None:
        """Record a figure of matplotlib, or each of a list as `tag/0` and so on. Without `close` it stays open."""
        several = isinstance(figure, list)
        for place, one in enumerate(figure if several else [figure]):
            name = f"{tag}/{place}" if several else tag
            self._record(name, MetricType.FIGURE, functools.partial(encode_figure, one), one, global_step, walltime)
            if close:
                import matplotlib.pyplot as plt

                plt.close(one)

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: Any = None, fps: float = 4, walltime: float | None = None
    ) -> None:
        """Record films of shape (N, T, C, H, W) side by side, as one animated GIF."""
        self._record(tag, MetricType.VIDEO, lambda: film(vid_tensor, fps), vid_tensor, global_step, walltime)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44_100,
        walltime: float | None = None,
    ) -> None:
        """Record a sound of shape (1, n): samples from -1 to 1, at `sample_rate` a second."""
        self._record(
            tag,
            MetricType.AUDIO,
            lambda: encode_audio(as_array(snd_tensor).squeeze(), sample_rate),
            snd_tensor,
            global_step,
            walltime,
        )

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: Mapping[str, Any] | None = None,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Keep the parts of a mesh as tensors: `tag/vertices`, `tag/colors` and `tag/faces`."""
        for part, values in {"vertices": vertices, "colors": colors, "faces": faces}.items():
            if values is not None:
                details = {"config": config_dict} if config_dict else None
                make = functools.partial(encode_tensor, values)
                self._record(f"{tag}/{part}", MetricType.TENSOR, make, values, global_step, walltime, details)

    # -- tables --------------------------------------------------------------------------------------------------------

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Record a curve of precision and recall, as a table with a row for each threshold."""
        count = min(num_thresholds, _MAX_THRESHOLDS)
        self._record(
            tag,
            MetricType.TABLE,
            lambda: _curve_table(pr_curve(labels, predictions, count, weights)),
            predictions,
            global_step,
            walltime,
        )

    def add_pr_curve_raw(
        self,
        tag: str,
        true_positive_counts: Any,
        false_positive_counts: Any,
        true_negative_counts: Any,
        false_negative_counts: Any,
        precision: Any,
        recall: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Record a curve that is computed already, as `add_pr_curve`."""
        counts = (true_positive_counts, false_positive_counts, true_negative_counts, false_negative_counts)
        self._record(
            tag,
            MetricType.TABLE,
            lambda: _curve_table([as_array(values) for values in (*counts, precision, recall)]),
            precision,
            global_step,
            walltime,
        )

    def add_embedding(
        self,
        mat: Any,
        metadata: Sequence[Any] | None = None,
        label_img: Any = None,
        global_step: Any = None,
        tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:
        """Record vectors of shape (n, d), as a table with their labels; many ones as a tensor, and the labels beside.

        The images of the points, of shape (n, C, H, W), become one image, `tag/images`.
        """

        def labels() -> tuple[list[str], list[list[Any]]]:
            header = list(metadata_header or ["label"])
            return header, [list(row) if metadata_header else [row] for row in metadata or ()]

        def make() -> dict[str, Any]:
            header, rows = labels()
            vectors = as_array(mat)
            columns = [*(header if rows else ()), *(f"x{place}" for place in range(vectors.shape[1]))]
            left = rows or [[]] * len(vectors)
            return table(columns=columns, rows=[[*one, *row] for one, row in zip(left, vectors.tolist(), strict=True)])

        if math.prod(getattr(mat, "shape", ())) <= _MAX_CELLS:
            self._record(tag, MetricType.TABLE, make, mat, global_step, None)
        else:
            self.add_tensor(tag, mat, global_step)
            if metadata is not None:
                header, rows = labels()
                made = functools.partial(table, None, header, rows)
                self._record(f"{tag}/metadata", MetricType.TABLE, made, metadata, global_step, None)
        if label_img is not None:
            self.add_images(f"{tag}/images", label_img, global_step)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _emit(
        self,
        tag: str,
        value: Any,
        kind: MetricType,
        global_step: Any,
        walltime: float | None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        step = 0 if global_step is None else global_step
        self._running().emit_metric(MetricData(tag, value, kind, step, walltime, None, metadata))

    def _record(
        self,
        tag: str,
        kind: MetricType,
        make: Callable[[], Encoded | dict[str, Any]],
        value: Any,
        global_step: Any,
        walltime: float | None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what `make` gives; where it fails, what `value` was, in words."""
        with contextlib.ExitStack() as stack:
            try:
                made: Any = make()
                if isinstance(made, Encoded):
                    details = {**made.details, **(details or {})}
                    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tracelet-"))
                    path = Path(directory, kind.value + made.suffix)
                    path.touch(0o600)  # Its mode goes with it into the run.
                    path.write_bytes(made.data)
                    made = path
            except Exception as error:  # noqa: BLE001 - the code of a foreign value or of an SDK may raise anything
                if tag not in self._warned:
                    self._warned.add(tag)
                    logger.warning("%.200r can't be kept as %s: %s", tag, kind.value, error)
                details = {"failed": kind.value, "error": as_text(error)}
                kind, made = MetricType.TEXT, as_text(value)[:1000]
            self._emit(tag, made, kind, global_step, walltime, details)


def _curve_table(values: Sequence[Any]) -> dict[str, Any]:
    thresholds = [place / max(len(values[0]) - 1, 1) for place in range(len(values[0]))]
    return table({"threshold": thresholds, **dict(zip(_CURVE, values, strict=True))})
