"""Any name becomes a directory name that every file system takes, and two names never become one."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracelet.utils.names import safe_directory_name

# Lone surrogates included, and many more of the awkward names than chance would give.
NAMES = st.text(alphabet=st.characters(exclude_categories=())) | st.text(
    alphabet="a./~%-_ \\NUL\0é\ud800con", max_size=120
)


@given(NAMES)
@example("nul.txt")
@example("COM1")
@example("~root")
@example("a" * 300)
def test_every_name_becomes_a_portable_directory_name(name: str) -> None:
    safe = safe_directory_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_%][A-Za-z0-9._%-]{0,99}", safe)
    assert not safe.endswith(".")
    assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", safe, re.IGNORECASE)


@given(st.text(alphabet=st.characters(exclude_categories=()), min_size=1, max_size=8))
@example("%")
@example("\ud800")
@example("%2E")
@example("..")
@example("con")
@example("a" * 99)
def test_a_short_name_can_be_read_back(name: str) -> None:
    assert unquote(safe_directory_name(name), errors="surrogatepass") == name


@given(NAMES, NAMES)
@example("", "%empty")
@example("", "empty")
@example("a/b", "a%2Fb")
@example("a" * 200, "a" * 201)
@example(".a", "%2Ea")
def test_two_names_never_share_a_directory(first: str, second: str) -> None:
    assert (safe_directory_name(first) == safe_directory_name(second)) == (first == second)


@given(st.text(min_size=100))
def test_a_cut_name_never_meets_the_name_it_looks_like(name: str) -> None:
    cut = safe_directory_name(name)
    assert len(cut) == 100
    assert safe_directory_name(cut) != cut


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits-2_v1.0", "digits-2_v1.0"),
        ("", "%empty"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("../../etc", "%2E.%2F..%2Fetc"),
        ("a.", "a%2E"),
        ("a b\0", "a%20b%00"),
        ("-rf", "%2Drf"),
        ("Con.txt", "%43on.txt"),
        ("console", "console"),
        ("é", "%C3%A9"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_examples(name: str, expected: str) -> None:
    assert safe_directory_name(name) == expected


def test_the_directory_can_be_made(tmp_path: Path) -> None:
    for name in ("..", "a/b", "\0", "\ud800", "x" * 5000, "🙂" * 40):
        (tmp_path / safe_directory_name(name)).mkdir()
    assert len(list(tmp_path.iterdir())) == 6
