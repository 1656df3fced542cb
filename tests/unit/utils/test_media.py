"""What the encoders make can be read back by other programs, and what they can't take is refused with words."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import types
import wave
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal
from PIL import Image

from tracelet.errors import MissingDependencyError, UsageError
from tracelet.utils.media import (
    MAX_ROWS,
    Encoded,
    as_array,
    encode_audio,
    encode_figure,
    encode_image,
    encode_tensor,
    encode_video,
    histogram,
    table,
)
from tracelet.utils.values import json_like


def opened(encoded: Encoded) -> Image.Image:
    return Image.open(io.BytesIO(encoded.data))


def pixels(image: Any) -> np.ndarray:
    return np.asarray(opened(encode_image(image)))


# -- arrays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [1.5, 2.5],
        np.array([1.5, 2.5], ">f8"),
        np.array([1.5, 2.5], ml_dtypes.bfloat16),
        np.array([1.5, 2.5], ml_dtypes.float8_e5m2),
        torch.tensor([1.5, 2.5], requires_grad=True),
        torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
        torch.tensor([1.5, 2.5], dtype=torch.float8_e4m3fn),
        [torch.tensor(1.5, requires_grad=True), torch.tensor(2.5)],
        jnp.array([1.5, 2.5], jnp.bfloat16),
        pd.Series([1.5, 2.5]),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_arrays_of_every_framework_become_numpys(value: Any) -> None:
    array = as_array(value)
    assert [1.5, 2.5] == array.tolist()
    assert array.dtype.isbuiltin == 1 or array.dtype.byteorder == ">"


def test_special_elements_keep_their_value() -> None:
    assert [1j, 2] == as_array(torch.tensor([1j, 2]).conj().conj()).tolist()
    assert [-1j] == as_array(torch.tensor([1j]).conj()).tolist()
    assert [-1, 7] == as_array(np.array([-1, 7], ml_dtypes.int4)).tolist()
    assert_array_equal([1, math.nan], as_array(np.ma.array([1, 2], mask=[False, True])))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("text", "str"),
        (None, "NoneType"),
        ([[1], [1, 2]], "list"),
        ({"a": 1}, "dict"),
        (np.array(["a"]), r"ndarray of shape \(1,\), <U1"),
        (torch.empty(2, device="meta"), r"Tensor of shape \(2,\), torch.float32"),
        (np.array([None]), "object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_is_refused_with_what_was_given(value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=rf"can't take .*{said}.*; give an array of numbers"):
        as_array(value)


def test_a_tensor_is_read_back_by_numpy() -> None:
    encoded = encode_tensor(torch.tensor([[1.5], [2.5]], dtype=torch.bfloat16))
    assert ".npy" == encoded.suffix
    assert {"dtype": "bfloat16", "shape": [2, 1]} == encoded.details
    kept = np.load(io.BytesIO(encoded.data), allow_pickle=False)
    assert np.float32 == kept.dtype
    assert [[1.5], [2.5]] == kept.tolist()
    assert {"dtype": "int64", "shape": [2]} == encode_tensor([1, 2]).details


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[-1.0, 0.0, 0.5, 1.0, 7.0, math.nan, math.inf, -math.inf]], [[0, 0, 128, 255, 255, 0, 255, 0]]),
        (np.array([[0, 1]], np.float16), [[0, 255]]),
        ([[True, False]], [[255, 0]]),
        (np.array([[0, 200]], np.uint8), [[0, 200]]),
        (np.array([[-5, 100]], np.int8), [[0, 100]]),
        (np.array([[2**64 - 1, 3]], np.uint64), [[255, 3]]),
        (torch.tensor([[0, 1]], dtype=torch.bfloat16), [[0, 255]]),
        (jnp.array([[0.0, 1.0]]), [[0, 255]]),
    ],
)
def test_elements_become_8_bits(value: Any, expected: list[list[int]]) -> None:
    assert expected == pixels(np.array(value) if isinstance(value, list) else value).tolist()


COLOURS = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (COLOURS[..., 0], COLOURS[..., 0]),
        (COLOURS[..., :1], COLOURS[..., 0]),
        (COLOURS[..., :3], COLOURS[..., :3]),
        (COLOURS, COLOURS),
        (np.moveaxis(COLOURS, -1, 0), COLOURS),
        (np.moveaxis(COLOURS[..., :3], -1, 0), COLOURS[..., :3]),
        (COLOURS[..., :1].reshape(1, 5, 6), COLOURS[..., 0]),
        (COLOURS[:4], COLOURS[:4]),  # (4, 6, 4) could be either: channels come last.
        (COLOURS[::-1, ::2], COLOURS[::-1, ::2]),
    ],
    ids=str,
)
def test_channels_may_be_last_or_first(image: Any, expected: Any) -> None:
    assert_array_equal(expected, pixels(image))


def test_an_image_is_png_and_knows_its_size() -> None:
    encoded = encode_image(np.zeros((5, 7)))
    assert ".png" == encoded.suffix
    assert {"width": 7, "height": 5} == encoded.details
    assert ("PNG", (7, 5)) == (opened(encoded).format, opened(encoded).size)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "F", "LA", "PA", "RGBX", "RGBa", "La"]
)
def test_pil_images_of_any_mode(mode: str) -> None:
    assert (3, 2) == opened(encode_image(Image.new(mode, (3, 2)))).size


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16L", "I;16B", "I;16N"])
def test_pil_images_of_more_than_8_bits_keep_16(mode: str) -> None:
    assert [[1000]] == pixels(Image.new(mode, (1, 1), 1000)).tolist()


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2, 2)), np.zeros((1, 3, 4, 4)), np.zeros((0, 4)), np.zeros(3), np.zeros((2, 2), complex), "a", None],
    ids=repr,
)
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(UsageError, match=r"give an array of shape \(H, W\)"):
        encode_image(image)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encode", "data", "suffix"),
    [
        *[(encode_image, saved(kind), f".{kind}".lower()) for kind in ("PNG", "GIF", "WebP")],
        (encode_image, saved("JPEG"), ".jpg"),
        (encode_image, b'<?xml version="1.0"?>\n<!-- a plot -->\n<svg width="1">', ".svg"),
        (encode_image, b"<svg/>", ".svg"),
        (lambda data: encode_audio(data, 8000), b"RIFF\0\0\0\nWAVEfmt ", ".wav"),
        (lambda data: encode_audio(data, 8000), b"ID3\x04", ".mp3"),
        (lambda data: encode_audio(data, 8000), b"\xff\xfb\x90", ".mp3"),
        (lambda data: encode_audio(data, 8000), b"OggS", ".ogg"),
        (lambda data: encode_audio(data, 8000), b"fLaC", ".flac"),
        (lambda data: encode_video(data, 4), b"\0\0\0\x18ftypmp42", ".mp4"),
        (lambda data: encode_video(data, 4), b"\x1aE\xdf\xa3", ".webm"),
        (lambda data: encode_video(data, 4), saved("GIF"), ".gif"),
    ],
)
def test_bytes_pass_and_get_the_suffix_of_their_kind(encode: Any, data: bytes, suffix: str) -> None:
    assert Encoded(data, suffix) == encode(data)
    assert Encoded(data, suffix) == encode(bytearray(data))


@pytest.mark.parametrize("data", [b"", b"text", b"<!DOCTYPE html><svg>", b"fLaC"])
def test_bytes_of_another_kind_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="give bytes of PNG"):
        encode_image(data)


def test_a_missing_pillow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    with pytest.raises(MissingDependencyError, match=r"tracelet\[media\]"):
        encode_image(np.zeros((2, 2)))
    assert ".svg" == encode_image(b"<svg/>").suffix


# -- figures -----------------------------------------------------------------------------------------------------------


def test_a_figure_is_drawn_and_stays_as_it_was() -> None:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.plot([0, 1])
    canvas, dpi = figure.canvas, figure.dpi
    for given in (figure, axes, figure.subfigures()):
        encoded = encode_figure(given)
        assert {"width": opened(encoded).width, "height": opened(encoded).height} == encoded.details
        assert np.asarray(opened(encoded).convert("L")).min() < 255
    assert (canvas, dpi) == (figure.canvas, figure.dpi)
    assert [axes] == figure.axes


def test_pyplot_stands_for_its_current_figure_which_is_neither_made_nor_closed() -> None:
    mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    with pytest.raises(UsageError, match="no figure open"):
        encode_figure(plt)
    assert [] == plt.get_fignums()
    plt.figure(7)
    assert ".png" == encode_figure(plt).suffix
    assert [7] == plt.get_fignums()
    plt.close("all")


def test_a_figure_of_plotly_is_kept_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    # Plotly is large and not installed for the tests; this is all of it that is used.
    class BaseFigure:
        def to_json(self) -> str:
            return json.dumps({"data": [], "layout": {"title": "é"}})

    module = types.ModuleType("plotly.basedatatypes")
    module.BaseFigure = BaseFigure  # type: ignore[attr-defined]  # a module made by hand
    monkeypatch.setitem(sys.modules, "plotly.basedatatypes", module)
    encoded = encode_figure(BaseFigure())
    assert ".plotly.json" == encoded.suffix
    assert {"data": [], "layout": {"title": "é"}} == json.loads(encoded.data)


def test_an_image_is_a_figure_and_a_text_is_not() -> None:
    assert ".png" == encode_figure(Image.new("L", (2, 2))).suffix
    broken = Figure()
    broken.text(0, 0, "$\\nonsense{$")
    for value in ("text", broken):
        with pytest.raises(UsageError):
            encode_figure(value)


# -- sounds and films --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0, 1.0, -1.0, 2.0, math.nan, -math.inf], [[0], [32767], [-32767], [32767], [0], [-32767]]),
        (np.array([1, -32768], np.int16), [[1], [-32768]]),
        (np.array([[1, 2], [3, 4], [5, 6]], ">i2"), [[1, 2], [3, 4], [5, 6]]),
        (np.array([[1, 3, 5], [2, 4, 6]], np.int16), [[1, 2], [3, 4], [5, 6]]),
        (torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16), [[0], [32767]]),
    ],
    ids=str,
)
def test_a_sound_is_read_back(samples: Any, expected: list[list[int]]) -> None:
    encoded = encode_audio(samples, 8000)
    frames, channels = len(expected), len(expected[0])
    with wave.open(io.BytesIO(encoded.data)) as file:
        assert (channels, 2, 8000, frames) == file.getparams()[:4]
        assert expected == np.frombuffer(file.readframes(frames), "<i2").reshape(frames, channels).tolist()
    assert {"sample_rate_hz": 8000, "channels": channels, "duration_s": frames / 8000} == encoded.details


@pytest.mark.parametrize("samples", [np.zeros(3, np.int32), np.zeros((2, 2, 2)), np.zeros((0,)), "a.wav"], ids=repr)
def test_what_is_no_sound_is_refused(samples: Any) -> None:
    with pytest.raises(UsageError, match="give floats or int16"):
        encode_audio(samples, 8000)


@pytest.mark.parametrize(
    "frames", [np.zeros((3, 5, 6, 3)), np.zeros((3, 3, 5, 6)), np.zeros((3, 5, 6, 4)), np.zeros((3, 5, 6))]
)
@pytest.mark.parametrize("frames_per_s", [4, 30.0])
def test_a_film_keeps_its_frames_and_its_time(frames: Any, frames_per_s: float) -> None:
    frames[1] = 1.0
    encoded = encode_video(torch.tensor(frames), frames_per_s)
    assert {"width": 6, "height": 5, "frames": 3, "frames_per_s": float(frames_per_s)} == encoded.details
    film = opened(encoded)
    assert ("GIF", 3, 0) == (film.format, film.n_frames, film.info["loop"])
    lengths_ms, brightness = [], []
    for index in range(3):
        film.seek(index)
        lengths_ms.append(film.info["duration"])
        brightness.append(np.asarray(film.convert("L")).mean())
    assert [0, 255, 0] == brightness
    assert sum(lengths_ms) == pytest.approx(3000 / frames_per_s, abs=10)


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 4, 4)), np.zeros((2, 2)), np.zeros((2, 5, 5, 2)), "a.mp4", 3], ids=repr
)
def test_what_is_no_film_is_refused(frames: Any) -> None:
    with pytest.raises(UsageError, match=r"give an array of shape \(T, H, W\)"):
        encode_video(frames, 4)


def test_a_film_without_frames_is_refused_with_that_reason() -> None:
    with pytest.raises(UsageError, match="it has no frames"):
        encode_video(np.zeros((0, 4, 4)), 4)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "8000", None])
def test_a_speed_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(UsageError, match="sample_rate_hz must be a number from 1"):
        encode_audio([0.0], bad)
    with pytest.raises(UsageError, match="frames_per_s must be a number from"):
        encode_video(np.zeros((1, 2, 2)), bad)


# -- histograms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1, 1, 1000, dtype=np.float16).reshape(10, 100),
        np.arange(-100, 101, dtype=np.int8),
        np.array([0, 2**64 - 1], np.uint64),
        np.array([True, False, True]),
        torch.linspace(-60000, 60000, 100, dtype=torch.bfloat16),
        np.array([-65504, 65504], np.float16),
        np.zeros(10),
        np.full(3, 1e300),
        np.array([-1.7e308, 1.7e308]),
        np.array([1.0, math.nextafter(1.0, 2.0)]),
        np.array([2**53, 2**53 + 1]),
        np.array([5e-324, 0]),
        3.5,
        [1, 2, 3],
    ],
    ids=str,
)
def test_every_finite_element_is_counted_in_ascending_edges(values: Any) -> None:
    made = histogram(values)
    edges, counts = made["edges"], made["counts"]
    assert len(edges) == len(counts) + 1
    assert {float} == {type(number) for number in edges + counts}
    assert all(low < high for low, high in pairwise(edges))
    assert as_array(values).size == sum(counts)
    assert (0, 0) == (made["nan"], made["inf"])


def test_a_histogram_is_that_of_numpy_and_counts_the_rest_apart() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    counts, edges = np.histogram(values, 10)
    odd = np.append(values, [math.nan, math.inf, -math.inf])
    assert {"edges": edges.tolist(), "counts": counts.tolist(), "nan": 1, "inf": 2} == histogram(odd, 10)


@pytest.mark.parametrize(("values", "nan"), [([], 0), (np.zeros((0, 3), int), 0), ([math.nan] * 2, 2)])
def test_without_a_finite_element_there_is_one_empty_bin(values: Any, nan: int) -> None:
    assert {"edges": [0.0, 1.0], "counts": [0.0], "nan": nan, "inf": 0} == histogram(values)


def test_a_long_double_that_no_float_holds_counts_as_infinite() -> None:
    made = histogram(np.array([1, np.finfo(np.longdouble).max, -np.finfo(np.longdouble).max]))
    assert (1, 2) == (sum(made["counts"]), made["inf"])
    assert np.isfinite(made["edges"]).all()


def test_a_ready_histogram_is_taken() -> None:
    expected = {"edges": [0.0, 1.0, 3.0], "counts": [2.0, 1.0], "nan": 0, "inf": 0}
    assert expected == histogram((np.array([2, 1]), np.array([0, 1, 3])))
    assert expected == histogram(([2, 1], [0, 1, 3]))
    assert [2.0, 1.0] == histogram(torch.histogram(torch.tensor([0.0, 0.1, 1.0]), 2))["counts"]
    for bad in (([1], [1, 0]), ([1], [0, math.nan]), ([math.nan], [0, 1])):
        with pytest.raises(UsageError, match="edges do not ascend"):
            histogram(bad)


@pytest.mark.parametrize(("values", "bins"), [("abc", 64), ([1j], 64), ([1], 0), ([1], 10**9), ([1], 2.5), ([1], None)])
def test_what_has_no_histogram_is_refused(values: Any, bins: Any) -> None:
    with pytest.raises(UsageError):
        histogram(values, bins)


# -- tables ------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    a: int
    b: str


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"data": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})}, None),
        ({"data": pd.DataFrame({"c": [0, 0], "b": ["x", "y"], "a": [1, 2]}), "columns": ["a", "b"]}, None),
        ({"data": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]}, None),
        ({"data": [Row(1, "x"), Row(2, "y")]}, None),
        ({"data": {"a": np.array([1, 2]), "b": ["x", "y"]}}, None),
        ({"data": {"a": torch.tensor([1, 2]), "b": ("x", "y"), "c": [0, 0]}, "columns": ["a", "b"]}, None),
        ({"columns": ["a", "b"], "rows": [[1, "x"], (2, "y")]}, None),
        ({"data": [[1, "x"], [2, "y"]], "columns": ["a", "b"]}, None),
        ({"data": iter([[1, "x"], [2, "y"]]), "columns": ("a", "b")}, None),
        ({"data": np.eye(2, dtype=int)}, {"columns": ["0", "1"], "rows": [[1, 0], [0, 1]]}),
        ({"data": [{"a": 1}, {"b": 2}]}, {"columns": ["a", "b"], "rows": [[1, None], [None, 2]]}),
        ({"data": pd.DataFrame({"a": [1]}, index=["x"])}, {"columns": ["index", "a"], "rows": [["x", 1]]}),
        ({"columns": ["a"]}, {"columns": ["a"], "rows": []}),
        ({"data": []}, {"columns": [], "rows": []}),
        ({"rows": [[1 + 2j, Path("/a")]]}, {"columns": ["0", "1"], "rows": [["(1+2j)", "/a"]]}),
    ],
)
def test_tables_of_every_kind(arguments: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert (expected or {"columns": ["a", "b"], "rows": [[1, "x"], [2, "y"]]}) == table(**arguments)


@pytest.mark.parametrize(
    "rows",
    [
        [[index] for index in range(MAX_ROWS + 1)],
        [["x" * 10_000]] * 5000,
        [[1] * 100] * 9000,
        [[0] * 9000] * 100,
    ],
    ids=["rows", "text", "cells", "wide"],
)
def test_a_large_table_is_cut_between_two_rows_and_says_so(rows: list[list[Any]]) -> None:
    made = table(rows=rows)
    kept = len(made["rows"])
    assert kept < len(rows) == made["rows_total"]
    assert rows[:kept] == made["rows"]
    assert made == json_like(made)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give a pandas frame"),
        ({"data": "text"}, "a text is no table"),
        ({"data": 5}, "int"),
        ({"data": np.zeros((1, 10_001))}, "10001 columns, of 10000 allowed"),
        ({"data": [1, 2]}, "list"),
        ({"data": ["ab", "cd"]}, "neither all mappings nor all sequences"),
        ({"data": [{"a": 1}, [2]]}, "neither all mappings nor all sequences"),
        ({"data": {"a": [1], "b": []}}, "sequences of one length"),
        ({"data": {"a": "text"}}, "sequences of one length"),
        ({"data": {"a": [1]}, "columns": ["b"]}, "can't take dict"),
        ({"rows": [[1, 2], [3]], "columns": ["a", "b"]}, "row 1 has 1 cells, and there are 2 columns"),
    ],
    ids=repr,
)
def test_what_is_no_table_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        table(**arguments)


def test_media_imports_no_framework() -> None:
    code = "import sys, tracelet.utils.media; print(*sys.modules)"
    root = Path(__file__).parents[3]
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root).stdout
    assert set() == {"numpy", "PIL", "matplotlib", "pandas", "torch"} & set(loaded.split())
