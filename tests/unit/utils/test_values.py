"""Whatever a user logs becomes something the journal can hold; nothing raises, and time and memory are bounded."""

from __future__ import annotations

import argparse
import enum
import math
import subprocess
import sys
import types
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import BaseModel, SecretStr

from tracelet.journal.format import decode_line, encode_line
from tracelet.utils.values import (
    CUT,
    INT64_MAX,
    INT64_MIN,
    MAX_NESTED_CHARS,
    MAX_TEXT_CHARS,
    Scalar,
    as_mapping,
    as_scalar,
    as_step,
    as_text,
    flatten,
    json_like,
)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    extra: dict[str, Any] = field(default_factory=dict)


class Model(BaseModel):
    depth: int = 2
    key: SecretStr = SecretStr("hunter2")


def boom(*args: Any) -> Any:
    raise RuntimeError("boom")


HOSTILE_METHODS = [
    "__float__",
    "__str__",
    "__repr__",
    "__index__",
    "item",
    "__len__",
    "__iter__",
    "__eq__",
    "__format__",
]
HOSTILE_PROPERTIES = ["shape", "dtype", "item", "__class__", "__float__", "__dict__"]


class HostileMeta(type):
    __name__ = property(boom)  # type: ignore[assignment]  # hostile on purpose


class HostileMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return boom() if key == "b" else 1

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b", "c"])

    def __len__(self) -> int:
        return boom()


def cyclic_list() -> list[Any]:
    cycle: list[Any] = [1]
    cycle += [cycle, {"again": cycle}]
    return cycle


def cyclic_dict() -> dict[str, Any]:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = cycle
    return cycle


def bomb(kind: type = list) -> Any:
    """Small in memory, and without end when it is walked or printed."""
    value: Any = 1
    for _ in range(30):
        value = {"a": value, "b": value, "c": value} if kind is dict else kind([value] * 3)
    return value


STRANGE: dict[str, Any] = {
    **{f"method {name}": type("Hostile", (), {name: boom})() for name in HOSTILE_METHODS},
    **{f"property {name}": type("Hostile", (), {name: property(boom)})() for name in HOSTILE_PROPERTIES},
    "all methods": type("Hostile", (), dict.fromkeys(HOSTILE_METHODS, boom))(),
    "metaclass": HostileMeta("Hostile", (), {"__str__": boom, "__repr__": boom})(),
    **{
        f"str {name}": type("Text", (str,), {name: boom})("x")
        for name in ["__str__", "__len__", "__getitem__", "encode"]
    },
    "int": type("Int", (int,), {"__str__": boom, "__int__": boom, "__abs__": boom, "__le__": boom})(3),
    "float": type("Float", (float,), {"__float__": boom, "__repr__": boom})(3),
    "dict": type("Dict", (dict,), {"items": boom, "__iter__": boom})(a=1),
    "list": type("List", (list,), {"__iter__": boom})([1]),
    "mapping": HostileMapping(),
    "dataclass": type("Sub", (Optimizer,), {"lr": property(boom, lambda *_: None)})(),
    "path": type("Path", (), {"__fspath__": boom})(),
    "cyclic list": cyclic_list(),
    "cyclic dict": cyclic_dict(),
    "bomb": bomb(),
    "bomb of dicts": bomb(dict),
    "bomb in a dataclass": Optimizer(extra={"bomb": bomb()}),
    "million": list(range(10**6)),
    "million of NaN": [math.nan] * 10**6,
    "million keys": dict.fromkeys(range(10**6)),
    "endless": range(10**15),
    "100 MB": "x" * 10**8,
    "five of 100 MB": ["é" * 10**8] * 5,
    "bytes": b"x" * 10**8,
    "digits": 10**400_000,
    "decimal": Decimal("1e999999999"),
    "signalling": Decimal("sNaN"),
    "fraction": Fraction(10**400),
    "array": np.zeros((1000, 1000)),
    "object array": np.array([None, boom]),
    "structured": np.zeros((), [("a", "f4"), ("b", "i8")]),
    "meta": torch.empty((), device="meta"),
    "sparse": torch.eye(3).to_sparse(),
    "complex": torch.tensor(1 + 2j),
    "class": Optimizer,
    "lambda": lambda: 0,
    "generator": (x for x in range(3)),
    "module": math,
    "broken config": OmegaConf.create({"a": "${nope}", "b": "???", "c": {"d": "${b}"}}),
}


@pytest.mark.parametrize("name", STRANGE)  # Not the values: pytest itself would stumble over them.
def test_nothing_raises_and_everything_is_bounded(name: str) -> None:
    value = STRANGE[name]
    limit_bytes = 6 * (MAX_NESTED_CHARS + MAX_TEXT_CHARS)  # JSON writes é as \\u00e9.
    previous = np.get_printoptions()["threshold"]
    np.set_printoptions(threshold=sys.maxsize)  # As many users do.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            as_scalar(value)
            as_step(value)
            as_mapping(value)
            assert len(as_text(value)) <= MAX_TEXT_CHARS
            line = encode_line({"value": json_like(value)})
            leaves = dict(flatten({"inner": value}))
    finally:
        np.set_printoptions(threshold=previous)
    assert decode_line(line) is not None
    assert len(line) < limit_bytes
    assert len(encode_line(leaves)) < limit_bytes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (True, 1.0),
        (Level.HIGH, 3.0),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (np.array(2.5), 2.5),
        (np.array([[3]], np.uint8), 3.0),
        (np.bool_(True), 1.0),
        (np.datetime64("NaT", "D") - np.datetime64("NaT", "D"), None),
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (torch.tensor([[2.0]], dtype=torch.bfloat16), 2.0),
        (torch.tensor(2.0, dtype=torch.float16), 2.0),
        (torch.tensor(True), 1.0),
        (jnp.float32(1.5), 1.5),
        (jnp.ones((1,), jnp.bfloat16), 1.0),
        *[
            (np.array([1]).astype(kind), 1.0)
            for kind in "? b B h H i I l L e f d g".split()  # noqa: SIM905 - letters of NumPy, shorter so
        ],
        *[
            (np.ones((), getattr(ml_dtypes, name)), 1.0)
            for name in ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4", "uint2"]
        ],
        ("1.5", None),
        (np.str_("1.5"), None),
        (np.array("1.5"), None),
        (b"1", None),
        (1j, None),
        (np.complex64(1), None),
        (np.array([1j]), None),
        (np.datetime64("2020-01-01", "ns"), None),
        (np.timedelta64(5, "ns"), None),
        (np.ones(2), None),
        (np.ones(0), None),
        (torch.ones(2), None),
        (torch.empty((), device="meta"), None),
        ([1.0], None),
        ({"item": 1}, None),
        (object(), None),
    ],
)
def test_one_number_is_a_scalar_and_nothing_else_is(value: Any, expected: float | None) -> None:
    assert as_scalar(value) == (None if expected is None else Scalar(expected))


def test_a_scalar_is_a_plain_float_of_the_same_bits() -> None:
    for value in (-0.0, math.inf, -math.inf, 5e-324, np.float64(0.1)):
        scalar = as_scalar(value)
        assert scalar is not None
        assert (type(scalar.value), repr(scalar.value)) == (float, repr(float(value)))


@pytest.mark.parametrize(
    ("value", "expected", "exact"),
    [
        (2**53, 2.0**53, None),
        (2**53 + 1, 2.0**53, "9007199254740993"),
        (np.uint64(2**64 - 1), 2.0**64, "18446744073709551615"),
        (10**400, math.inf, "1" + "0" * 400),
        (-(10**5000), -math.inf, hex(-(10**5000))),
    ],
    ids=["2**53", "above", "uint64", "10**400", "-10**5000"],
)
def test_an_integer_that_a_float_cannot_hold_keeps_its_text(value: Any, expected: float, exact: str | None) -> None:
    assert as_scalar(value) == Scalar(expected, exact)


@pytest.mark.parametrize(
    ("value", "exact"), [(None, "None"), (np.ma.masked, "--"), (np.ma.array([7], mask=True), "[--]")]
)
def test_what_is_absent_is_nan(value: Any, exact: str) -> None:
    scalar = as_scalar(value)
    assert scalar is not None
    assert math.isnan(scalar.value)
    assert exact == scalar.exact


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (None, (None, None)),
        (0, (0, None)),
        (-1, (-1, None)),
        (3.0, (3, None)),
        (1.5, (1, "1.5")),
        (np.int32(7), (7, None)),
        (torch.tensor(7), (7, None)),
        (torch.tensor([1.5]), (1, "1.5")),
        (2**63, (INT64_MAX, "9223372036854775808")),
        (-(2**63), (INT64_MIN, None)),
        (-(10**400), (INT64_MIN, f"-1{'0' * 400}")),
        (1e300, (INT64_MAX, "1e+300")),
        (math.nan, (None, "nan")),
        (math.inf, (None, "inf")),
        ("5", (None, "5")),
        (1j, (None, "1j")),
        ([1], (None, "[1]")),
        (np.arange(2), (None, "[0 1]")),
    ],
)
def test_steps(step: Any, expected: tuple[int | None, str | None]) -> None:
    assert expected == as_step(step)


def test_text_is_cut_and_says_so() -> None:
    text = as_text("ab" * MAX_TEXT_CHARS)
    assert len(text) <= MAX_TEXT_CHARS
    assert text.endswith(f"… ({2 * MAX_TEXT_CHARS} characters)")
    assert text == as_text(text)
    assert "x" * MAX_TEXT_CHARS == as_text("x" * MAX_TEXT_CHARS)


def test_two_surrogates_become_their_character_as_in_json_and_one_stays() -> None:
    assert "😀 \ud800" == as_text("\ud83d\ude00 \ud800")


def test_text_of_containers_is_that_of_python_unless_it_has_no_bound() -> None:
    assert "(1, {'a': 'b'})" == as_text((1, {"a": "b"}))
    assert "Optimizer(lr=0.1, betas=(0.9, 0.99), extra={})" == as_text(Optimizer())
    assert "[1, '<cycle>', {'again': '<cycle>'}]" == as_text(cyclic_list())
    assert "<ndarray of shape (1000, 2)>" == as_text(np.zeros((1000, 2)))
    assert "<bytes of 1000000 bytes>" == as_text(bytes(10**6))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(32), 32),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (torch.tensor(2), 2),
        (Colour.RED, "red"),
        (Path("/a/b"), "/a/b"),
        (2**64, "18446744073709551616"),
        (set("hgfedcba"), list("abcdefgh")),
        ((1, deque([2])), [1, [2]]),
        (range(3), [0, 1, 2]),
        ({(0, 1): {"x": None}}, {"(0, 1)": {"x": None}}),
        (Optimizer(), {"lr": 0.1, "betas": [0.9, 0.99], "extra": {}}),
        (types.SimpleNamespace(a=1), {"a": 1}),
        (argparse.Namespace(a=Model()), {"a": {"depth": 2, "key": "**********"}}),
        (np.datetime64("2020-01-01"), "2020-01-01"),
        (1j, "1j"),
        (b"ab", "b'ab'"),
        (cyclic_dict(), {"a": 1, "self": "<cycle>"}),
        (HostileMapping(), {"a": 1, "…": CUT}),
        ([HostileMapping(), 2], [{"a": 1, "…": CUT}, 2]),
    ],
)
def test_json_like(value: Any, expected: Any) -> None:
    made = json_like(value)
    assert expected == made
    assert type(expected) is type(made)  # 32, not 32.0; True, not 1.0


def test_the_same_container_twice_is_no_cycle() -> None:
    shared = [1]
    assert [[1], [1]] == json_like([shared, shared])


def test_a_config_of_omegaconf_is_resolved_as_far_as_it_can_be() -> None:
    config = OmegaConf.create(
        {"lr": 0.1, "same": "${lr}", "missing": "???", "to_missing": "${missing}", "none": None}
        | {"layers": [{"width": "${lr}"}, "${nowhere}"], "copy": "${layers}"}
    )
    layers = [{"width": 0.1}, "${nowhere}"]
    expected = {"lr": 0.1, "same": 0.1, "missing": "???", "to_missing": "${missing}", "none": None}
    assert {**expected, "layers": layers, "copy": layers} == json_like(config)
    assert {**expected, "layers": layers, "copy": layers} == dict(flatten(config))


def test_flatten_joins_names_and_keeps_what_is_empty() -> None:
    values = {"model": Optimizer(extra={"a": {}, 1: [cyclic_dict()]}), "none": None}
    leaves = [("lr", 0.1), ("betas", [0.9, 0.99]), ("extra/a", {}), ("extra/1", [{"a": 1, "self": "<cycle>"}])]
    assert [(f"p/model/{name}", value) for name, value in leaves] + [("p/none", None)] == list(flatten(values, "p"))
    assert [] == list(flatten({}))
    assert [("a", 1), ("self", "<cycle>")] == list(flatten(cyclic_dict()))
    assert [("", 5)] == list(flatten(5))


def test_what_is_too_large_is_cut_and_says_so() -> None:
    values = json_like(list(range(10**6)))
    assert list(range(1000)) == values[:1000]
    assert CUT == values[-1]
    assert ("…", CUT) == list(flatten({str(index): index for index in range(10**6)}))[-1]
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert "<list below 20 levels>" in str(json_like(deep))


TEXT = st.text(alphabet=st.characters(exclude_categories=()) | st.sampled_from("\ud83d\ude00\0"))
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary() | st.complex_numbers() | st.decimals()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(TEXT | st.integers() | st.just("__float__"), inner)
    ),
)


def frozen(value: Any) -> Any:
    """Equal where the values are, NaN, -0.0 and types included."""
    return repr(value)


@given(VALUES)
@example({"__float__": "nan"})
@example("\ud83d\ude00")
@example([2**63, -(2**63), -0.0, math.nan])
def test_the_line_log_gives_back_what_json_like_made(value: Any) -> None:
    made = json_like(value)
    line = decode_line(encode_line({"value": made}))
    assert line is not None
    assert frozen(made) == frozen(line["value"])
    assert frozen(made) == frozen(json_like(made))


def test_values_imports_no_framework() -> None:
    code = "import sys, tracelet.utils.values; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert set() == {"numpy", "torch", "jax", "omegaconf", "pydantic", "argparse"} & set(run.stdout.split())
