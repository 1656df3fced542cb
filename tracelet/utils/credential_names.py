"""What the name of a field says of its value: whether it is a credential. For `utils.redaction`. Pure functions."""

from __future__ import annotations

import enum
import re
from typing import Final, final

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # `authToken`, `HF_TOKEN` and `hub-token` have two.

_SECRETS: Final = ("secret", "password", "passwd", "passphrase", "passcode", "pwd")
_CREDENTIALS: Final = frozenset(
    {"credential", "cred", "authorization", "auth", "oauth", "jwt", "bearer", "cookie", "pat"}
)
_JOINED: Final = ("apikey", "accesskey", "secretkey", "privatekey", "authkey", "accesstoken", "authtoken", "apitoken")
_KINDS_OF_KEYS: Final = frozenset({
    "access", "account", "admin", "api", "auth", "client", "consumer", "deploy", "encryption", "gpg", "license",
    "master", "pem", "pgp", "private", "rsa", "secret", "service", "session", "shared", "signature", "signing", "ssh",
    "ssl", "storage", "subscription", "tls", "webhook", "write",
    "anthropic", "aws", "azure", "clearml", "comet", "datadog", "gcp", "github", "gitlab", "hf", "mlflow", "neptune",
    "openai", "sentry", "stripe", "wandb",
})  # fmt: skip  # Not those of a mapping: `image_key`, `sort_key`, `primary_key`.
_OF_TOKENIZERS: Final = frozenset({
    "additional", "audio", "boi", "bos", "bot", "cls", "decoder", "delimiter", "end", "eoi", "eos", "eot", "fill",
    "first", "image", "last", "mask", "middle", "new", "next", "pad", "placeholder", "prefix", "sep", "separator",
    "soi", "special", "start", "stop", "suffix", "text", "trigger", "unk", "video", "vision",
})  # fmt: skip
_OWNERS_OF_PASS: Final = frozenset({
    "admin", "database", "db", "email", "ftp", "login", "mail", "mongo", "mysql", "pg", "postgres", "proxy", "redis",
    "root", "smtp", "user",
})  # fmt: skip  # `pass` alone is a forward pass, or the third one.
_SAME_THING: Final = frozenset({"base64", "default", "new", "old", "raw", "str", "string", "text", "v", "value"})
_ABOUT_IT: Final = frozenset({"dir", "env", "file", "id", "name", "path", "uri", "url"})


@final
class Grade(enum.IntEnum):
    """What a name says of the value under it."""

    PLAIN = 0  # Nothing.
    MAYBE = 1  # A credential if it looks like one: `sort_key`, `tokens`, `token_file`.
    CREDENTIAL = 2  # A text is one; a number and a tokenizer's `<pad>` are none.
    SECRET = 3  # A text is one whatever it is, and so is a number: a password may be all digits.
    NAMED = 4  # The user says so: whatever is no None, True or False is one.


def grade_of(name: str) -> Grade:
    """The grade of one name, without levels. What matters is the last word: `token_type` is a type."""
    words = [word.lower() for word in _WORDS.findall(name)]
    while len(words) > 1 and (words[-1].isdecimal() or words[-1] in _SAME_THING):
        words.pop()
    grades = [_grade_of_word(word, before.removesuffix("s")) for before, word in zip(["", *words], words, strict=False)]
    if Grade.SECRET in grades and words[-1] not in _ABOUT_IT:
        return Grade.SECRET
    return (grades[-1] or Grade.MAYBE) if any(grades) else Grade.PLAIN


def _grade_of_word(word: str, before: str) -> Grade:
    singular = word.removesuffix("s")
    if singular.endswith(_SECRETS):  # `PGPASSWORD`, `clientsecret`
        return Grade.SECRET
    if word == "pass":
        return Grade.SECRET if before in _OWNERS_OF_PASS else Grade.PLAIN
    if singular == "token":
        if before in _OF_TOKENIZERS:
            return Grade.PLAIN
        return Grade.CREDENTIAL if word == "token" else Grade.MAYBE
    if singular == "key":
        return Grade.CREDENTIAL if before in _KINDS_OF_KEYS else Grade.MAYBE
    return Grade.CREDENTIAL if singular in _CREDENTIALS or singular.endswith(_JOINED) else Grade.PLAIN
