"""Names on their way to ClearML and back: reversible, and apart by the server's own rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.backends.clearml_service import event_id
from tracelet.backends._clearml.names import (
    GENERAL,
    curve,
    is_plain_curve,
    is_plain_parameter,
    name_of_curve,
    name_of_parameter,
    parameter,
)

# What can go wrong: the separators of the server and of ours, what looks escaped, and the names of sections.
NAMES = st.lists(
    st.sampled_from(
        ["a", "b", "-", "/", "_", "__", "_x", "_x002D_", "_x110001_", " ", "General", "properties", "\n", "ß"]
    )
    | st.text(max_size=3),
    max_size=6,
).map("".join)


@given(NAMES)
def test_a_curve_gives_its_name_back(name: str):
    assert name == name_of_curve(*curve(name))


@given(NAMES, NAMES)
def test_two_curves_are_two_for_the_server(one: str, other: str):
    ids = {
        event_id({"task": "t", "iter": 0, "metric": title, "variant": series})
        for title, series in (curve(one), curve(other))
    }
    assert len(ids) == len({one, other})


@given(NAMES)
def test_a_parameter_gives_its_name_back(name: str):
    section, key = parameter(name)
    assert name == name_of_parameter(section, key)
    assert key != ""
    assert "__" not in section
    assert section.lower() not in ("properties", "tracelet names")


def test_common_names_stay_as_they_are():
    assert ("loss", "loss") == curve("loss")
    assert ("loss", "train") == curve("train/loss")
    assert ("c", "a/b") == curve("a/b/c")
    assert (GENERAL, "lr") == parameter("lr")
    assert ("optimizer", "betas/0") == parameter("optimizer/betas/0")
    for name in ("loss", "größe/日本", "two words", "system/gpu.0/memory_used", "top-5/accuracy"):
        assert is_plain_curve(name)
        assert is_plain_parameter(name)
    assert not is_plain_curve("val/top-5")


def test_a_name_that_is_too_long_is_cut_and_stays_apart():
    one, other = (curve("x" * 5000 + end) for end in "ab")
    assert one != other
    assert len(one[0]) == 2000
    assert name_of_curve(*one) is None
    assert curve("x" * 400) == ("x" * 400, "x" * 400)
