"""From TensorBoard's layouts of images and films to those of `tracelet.utils.media`.

Called on the thread that logs. Pure functions. They raise whatever does not fit; the caller records it in words.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tracelet.utils.imports import require
from tracelet.utils.media import Encoded, as_array, encode_image, encode_video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLUMNS: Final = 8
"""Of the grid that several images become."""

_LABEL_PX: Final = 12


def picture(image: Any, dataformats: str) -> NDArray[Any]:
    """An image of shape (H, W, C); several ones become a grid.

    Args:
        image: An array of any framework.
        dataformats: What each of its axes is: `CHW`, `HW`, `NHWC`, …

    Raises:
        ValueError: The letters do not fit the array.
    """
    array, letters = as_array(image), dataformats.upper()
    if len(set(letters)) != len(letters) or len(letters) != array.ndim or not {"H", "W"} <= set(letters) <= set("NCHW"):
        raise ValueError(f"dataformats={dataformats!r} does not name the {array.ndim} axes of {array.shape}")
    array = array.transpose([letters.index(letter) for letter in "NHWC" if letter in letters])
    array = array if "C" in letters else array[..., None]
    return grid(array) if "N" in letters else array


def grid(images: NDArray[Any]) -> NDArray[Any]:
    """Images of shape (N, H, W, C) in rows of eight."""
    import numpy as np

    count, height, width, channels = images.shape
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    canvas = np.zeros((rows, columns, height, width, channels), images.dtype)
    canvas.reshape(-1, height, width, channels)[:count] = images
    return canvas.swapaxes(1, 2).reshape(rows * height, columns * width, channels)


def with_boxes(image: NDArray[Any], boxes: NDArray[Any], labels: Sequence[str] | None, rescale: float) -> Encoded:
    """An image with red boxes.

    Args:
        image: As `picture` gives it.
        boxes: Of shape (n, 4): left, top, right and bottom, in pixels.
        labels: One for each box.
        rescale: By what the image grows.
    """
    pillow, drawing = require("PIL.Image", "An image", "media"), require("PIL.ImageDraw", "An image", "media")
    picture = pillow.open(io.BytesIO(encode_image(image).data)).convert("RGB")
    draw = drawing.Draw(picture)
    for place, (left, top, right, bottom) in enumerate(boxes.tolist()):
        draw.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), outline="red", width=2)
        if labels is not None:
            corner = (left + 2, bottom - _LABEL_PX)
            draw.rectangle(draw.textbbox(corner, labels[place]), fill="red")
            draw.text(corner, labels[place], fill="black")
    return encode_image(picture.resize((int(picture.width * rescale), int(picture.height * rescale))))


def film(frames: Any, frames_per_s: float) -> Encoded:
    """Films of shape (N, T, C, H, W) side by side."""
    array = as_array(frames).transpose(1, 0, 3, 4, 2)
    return encode_video([grid(moment) for moment in array], frames_per_s)


def pr_curve(labels: Any, predictions: Any, thresholds: int, weights: Any = None) -> list[NDArray[np.float64]]:
    """Counts and rates at thresholds from 0 to 1.

    Returns:
        True positives, false positives, true negatives, false negatives, precision and recall, each of shape
        (thresholds,).
    """
    import numpy as np

    truth = as_array(labels).ravel().astype(np.float64)
    weight = np.ones_like(truth) if weights is None else np.broadcast_to(as_array(weights), truth.shape)
    bins = np.floor(as_array(predictions).ravel() * (thresholds - 1)).astype(int).clip(0, thresholds - 1)
    true_positives, false_positives = (
        np.bincount(bins, share * weight, thresholds)[::-1].cumsum()[::-1] for share in (truth, 1 - truth)
    )
    found, all_positives = true_positives + false_positives, true_positives[0]
    return [
        true_positives,
        false_positives,
        false_positives[0] - false_positives,
        all_positives - true_positives,
        true_positives / np.maximum(found, 1e-7),
        true_positives / np.maximum(all_positives, 1e-7),
    ]
