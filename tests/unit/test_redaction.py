"""What redaction hides and what it leaves: a corpus of both, the time that it takes, and what a user adds."""

from __future__ import annotations

import json
import random
import re
import string
import time
from pathlib import Path
from typing import Any

import pytest

from tracelet.utils.redaction import HIDDEN, Redactor, clean
from tracelet.utils.token_shapes import HEADERS, SHAPES

ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "L": string.ascii_letters,
    "H": "0123456789abcdef",
    "U": string.ascii_uppercase + string.digits,
    "D": string.digits,
}


def planted(template: Any, rng: random.Random) -> Any:
    """`{T:ghp_,A36}` is a prefix and 36 characters, which are put together here so that no scanner of repositories
    takes the corpus for a leak; `{H40}` is 40 hexadecimal digits."""
    if isinstance(template, list):
        return [planted(item, rng) for item in template]
    if isinstance(template, dict):
        return {key: planted(item, rng) for key, item in template.items()}
    if not isinstance(template, str):
        return template

    def drawn(match: re.Match[str]) -> str:
        kind, count = match[1], int(match[2])
        return "".join(rng.choice(ALPHABETS[kind]) for _ in range(count - 1)) + ALPHABETS[kind][-1]

    parts = re.sub(r"\{T:([^},]*),([ALHUD]\d+)\}", r"\1{\2}", template)
    parts = re.sub(r"\{T:([^},]*),([^}]*)\}", r"\1\2", parts)
    return re.sub(r"\{([ALHUD])(\d+)\}", drawn, parts)


CORPUS = json.loads((Path(__file__).parent / "redaction_corpus.json").read_text())
HIDING = [case for case in CORPUS if case[2] is not None]
KEEPING = [case for case in CORPUS if case[2] is None]


def applied(mode: str, given: Any, redactor: Redactor) -> Any:
    match mode:
        case "text":
            return redactor.without_tokens(given)
        case "clean":
            return redactor.clean(given)
        case "value":
            return redactor.value(*given)
        case _:
            return redactor.arguments(given)


def test_the_corpus_has_both_ways():
    assert len(HIDING) >= 100
    assert len(KEEPING) >= 60


@pytest.mark.parametrize("case", HIDING, ids=lambda case: f"{case[0]}: {case[1]}")
@pytest.mark.parametrize("seed", range(5))
def test_a_credential_is_hidden(case: list[Any], seed: int):
    mode, given, expected = case
    redactor, given = Redactor(), planted(given, random.Random(seed))
    assert expected == applied(mode, given, redactor)
    if (
        mode == "text"
    ):  # What is hidden in a person's text is hidden in a program's, too, and a second time changes nothing.
        assert redactor.clean(expected) == redactor.clean(given)
        assert expected == redactor.without_tokens(expected)


@pytest.mark.parametrize("case", KEEPING, ids=lambda case: f"{case[0]}: {case[1]}")
def test_what_is_no_credential_stays(case: list[Any]):
    mode, given, _ = case
    assert (given[1] if mode == "value" else given) == applied(mode, given, Redactor())


# Texts that a pattern could need quadratic time for: beginnings that never come to their end.
_BEGINNINGS = [
    "".join(f"{mark}a1; " for shape in (*SHAPES, *HEADERS) for mark in shape.marks),
    "eyJ-sk-", "key=", '"key: str = "\\', "://a?key=",
]  # fmt: skip


@pytest.mark.parametrize("beginning", _BEGINNINGS, ids=range(5))
def test_the_time_is_linear_in_the_length(beginning: str):
    def spent_s(length: int) -> float:
        text = (beginning * (length // len(beginning) + 1))[:length]
        start_s = time.process_time()
        clean(text)
        return time.process_time() - start_s

    assert spent_s(1 << 20) < 10 * spent_s(1 << 18) + 0.1  # 4 times where it is linear, 16 where it is quadratic.


def test_fields_and_patterns_of_the_user_are_hidden():
    redactor = Redactor(names=["Employee-ID", "host"], patterns=[r"ACME-\d{4}", r"user=(?P<secret>\w+);"])
    assert HIDDEN == redactor.value("config/employee_id", "x1") == redactor.value("host", 7)
    assert f"host={HIDDEN} {HIDDEN} user={HIDDEN};" == redactor.clean("host=a.b ACME-1234 user=me;")
    assert f"host=a.b {HIDDEN}" == redactor.without_tokens("host=a.b ACME-1234")


def test_fields_that_the_user_names_stay():
    redactor = Redactor(keep=["image_token", "session-key"])
    assert "cat" == redactor.value("image_token", "cat")
    assert ["--session-key", "a", "--api-key", HIDDEN] == redactor.arguments(["--session-key", "a", "--api-key", "b"])
    assert HIDDEN == redactor.value("session_key", "sk-" + "a1" * 20)  # Its shape says it all the same.


def test_tables_lose_what_can_be_told_by_its_shape():
    token = "hf_" + "a" * 34
    assert {"rows": [["a", HIDDEN, 1]], "password": "b"} == Redactor().texts(
        {"rows": [["a", token, 1]], "password": "b"}
    )


def test_a_secret_that_is_longer_than_any_word_is_hidden_to_its_end():
    assert f"password={HIDDEN} x" == clean(f"password={'a1' * 4000} x")
