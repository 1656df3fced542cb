from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelet.utils.escaping import NameEscaping

ALLOWED = r"\w./ :\-"
GOOD = re.compile(rf"[{ALLOWED}]+")
ANY = st.text(st.characters(exclude_categories=()), max_size=60)
TRICKY = st.text(alphabet="_xX0041F/.%a ", max_size=24)


@pytest.fixture(scope="module")
def escaping() -> NameEscaping:
    return NameEscaping(ALLOWED, 250, paths=True)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train/loss", "train/loss"),
        ("größe/日本", "größe/日本"),
        ("box_x1_y1", "box_x1_y1"),
        ("a%b", "a_x0025_b"),
        ("a_x0025_b", "a_x005F_x0025_b"),
        ("a_x0025", "a_x005F_x0025"),
        ("a//b", "a_x002F__x002F_b"),
        ("/a", "_x002F_a"),
        ("a/", "a_x002F_"),
        ("../a", "_x002E_./a"),
        ("a/./b", "a/_x002E_/b"),
        ("", "_x110000_"),
        ("🙂\n", "_x1F642__x000A_"),
    ],
)
def test_escape_is_readable_and_leaves_good_names_alone(escaping: NameEscaping, name: str, key: str):
    assert key == escaping.escape(name)
    assert name == escaping.unescape(key)


@given(ANY | TRICKY)
def test_every_name_comes_back(name: str):
    escaping = NameEscaping(ALLOWED, 2000, paths=True)
    key = escaping.escape(name)
    assert name == escaping.unescape(key)
    assert GOOD.fullmatch(key)
    assert not {"", ".", ".."} & set(key.split("/"))


@given(st.lists(TRICKY, unique=True))
def test_names_never_meet(names: list[str]):
    escaping = NameEscaping(ALLOWED, 40, paths=True)
    assert len(names) == len({escaping.escape(name) for name in names})


def test_a_long_name_is_cut_and_stays_unique(escaping: NameEscaping):
    keys = [escaping.escape("x" * length) for length in (248, 249, 250, 251, 400)]
    assert [248, 249, 250, 250, 250] == [len(key) for key in keys]
    assert 5 == len(set(keys))
    assert ["x" * 248, "x" * 249, None, None, None] == [escaping.unescape(key) for key in keys]


def test_a_cut_name_has_good_levels():
    escaping = NameEscaping(ALLOWED, 40, paths=True)
    for length in range(15, 30):
        key = escaping.escape("x" * length + "/" + "." * 30)
        assert 40 == len(key)
        assert not {"", ".", ".."} & set(key.split("/"))


def test_names_without_number_take_no_memory():
    escaping = NameEscaping(ALLOWED, 250)
    for number in range(25_000):
        escaping.escape(f"step {number}")
    assert len(escaping._cache) <= 10_000
