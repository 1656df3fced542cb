"""Credentials are hidden by their keys, by their places in URLs and by their shapes; nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelet.utils.redaction import HIDDEN, redacted
from tracelet.utils.values import flatten


@pytest.mark.parametrize(
    "key",
    ["token", "hub_token", "HF_TOKEN", "api_key", "apiKey", "APIKEY", "secrets", "password", "db_passwd", "authToken",
     "aws_secret_access_key", "credentials", "authorization", "pwd", "auth"],
)  # fmt: skip
def test_a_text_under_the_key_of_a_credential_is_hidden(key: str):
    nested = {"list": [{key: "s3cret"}], key: {"inner": {"deep": "s3cret"}, "list": ["s3cret", True, None]}}
    expected = {"list": [{key: HIDDEN}], f"{key}/inner/deep": HIDDEN, f"{key}/list": [HIDDEN, True, None]}
    assert expected == dict(redacted(nested))


@pytest.mark.parametrize(
    "kept",
    [{"num_memory_tokens": 8}, {"pad_token": "<pad>"}, {"eos_token": "<|im_end|>"}, {"unk_token": "[UNK]"},
     {"pad_token_id": 1}, {"eos_token_id": [1, 2]}, {"tokenizer": "bert"}, {"author": "me"}, {"monkey": "banana"},
     {"hub_token": None}, {"use_auth_token": True}, {"num_key_value_heads": 4}, {"api_key": ""}, {"turkey": "x"},
     {"target_modules": ["query", "key"]}, {"keyboard": "us"}, {"url": "https://host/path?page=2#top"}],
)  # fmt: skip
def test_what_is_no_credential_stays(kept: dict[str, Any]):
    assert kept == dict(redacted(kept))


def test_a_password_of_digits_is_hidden_too():
    assert {"password": HIDDEN, "password_length": 12, "token_count": 3000} == dict(
        redacted({"password": 1234, "password_length": 12, "token_count": 3000})
    )


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:s3cret@host/a", "https://<hidden>@host/a"),
        ("postgresql://s3cret@host:5432/db", "postgresql://<hidden>@host:5432/db"),
        (
            "see https://host/a?page=1&access_token=s3cret#x now",
            "see https://host/a?page=1&access_token=<hidden>#x now",
        ),
        ("https://host/?api_key=s3cret&b=1", "https://host/?api_key=<hidden>&b=1"),
        ("git@host:team/project.git", "git@host:team/project.git"),
    ],
)
def test_a_url_loses_its_credentials_alone(url: str, clean: str):
    assert {"a": clean, "list": [clean]} == dict(redacted({"a": url, "list": [url]}))


@pytest.mark.parametrize(
    "token",
    ["hf_" + "a1" * 15, "sk-" + "a1" * 15, "ghp_" + "a" * 36, "github_pat_" + "a" * 40, "glpat-" + "a" * 20,
     "xoxb-123456789012", "AKIA" + "A" * 16, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.abc_def",
     "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"],
)  # fmt: skip
def test_a_token_is_told_by_its_shape(token: str):
    assert {"note": f"it is {HIDDEN}, look"} == dict(redacted({"note": f"it is {token}, look"}))


def test_names_get_their_prefix():
    assert [("model/a/b", 1)] == list(redacted({"a": {"b": 1}}, "model"))


_TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.dictionaries(_TEXTS, st.recursive(st.integers() | _TEXTS, lambda inner: st.lists(inner, max_size=3))))
def test_nothing_is_lost_but_values_that_are_hidden(params: dict[str, Any]):
    before, after = list(flatten(params)), list(redacted(params))
    assert [name for name, _ in before] == [name for name, _ in after]
    assert all(new == old or HIDDEN in repr(new) for (_, old), (_, new) in zip(before, after, strict=True))
