"""Keeps credentials out of what is recorded: parameters, arguments, configurations, URLs.

Called on the thread that logs, before anything reaches the disk. Pure functions. The guarantee: a text under a key that
names a credential, a credential in a URL, and a token that can be told by its shape are replaced by `HIDDEN`, however
deep they stand; numbers and special tokens of a tokenizer (`num_memory_tokens=8`, `pad_token="<pad>"`) stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tracelet.utils.values import flatten

HIDDEN: Final = "<hidden>"
"""Stands where a credential stood."""

_WORD_STARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # In `authToken`, before the T.
_CREDENTIAL: Final = re.compile(
    r"(?:token|(?<![a-z])key|apikey|secret|password|passwd|passphrase|pwd|credential|(?<![a-z])auth|authorization)s?"
    r"(?![a-z])"
)
_PASSWORD: Final = re.compile(r"(?:secret|password|passwd|passphrase|pwd)s?(?![a-z])")  # May be all digits.
_SPECIAL_TOKEN: Final = re.compile(r"<[^<>]{1,60}>|\[[^\[\]]{1,60}\]|</?s>")
_USER_INFO: Final = re.compile(r"(?<=://)[^/\s?#@]*@")
_QUERY: Final = re.compile(r"([?&;#]([^=&;#?\s]{1,100})=)[^&;#\s]+")
_SHAPES: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|xox[abeprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
)


def redacted(params: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested parameters, as `flatten` gives them, without credentials."""
    for name, value in flatten(params, prefix):
        yield name, _without_credentials(value, [_grade(level) for level in name.split("/")])


def _without_credentials(value: Any, keys: list[re.Pattern[str] | None]) -> Any:
    """The value, if the keys around it are of these grades."""
    if isinstance(value, Mapping):
        return {key: _without_credentials(item, [*keys, _grade(key)]) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_credentials(item, keys) for item in value]
    if isinstance(value, str) and value:
        if any(keys) and not _SPECIAL_TOKEN.fullmatch(value):
            return HIDDEN
        return _cleaned(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return HIDDEN if is_number and _PASSWORD in keys else value


def _grade(key: str) -> re.Pattern[str] | None:
    """Which of the two kinds of credential a key names: `api_key`, `authToken`, `PASSWORDS`, not `tokenizer`."""
    words = _WORD_STARTS.sub("_", key).lower()
    return next((pattern for pattern in (_PASSWORD, _CREDENTIAL) if pattern.search(words)), None)


def _cleaned(text: str) -> str:
    """A text without the credentials that can be told by their shape or by their place in a URL."""
    if "://" in text:
        text = _USER_INFO.sub(f"{HIDDEN}@", text)
        text = _QUERY.sub(lambda match: match[1] + HIDDEN if _grade(match[2]) else match[0], text)
    return _SHAPES.sub(HIDDEN, text)
