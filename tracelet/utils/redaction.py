"""Keeps credentials out of what is recorded: parameters, arguments, tags, configurations, URLs, lines of text.

Called on the thread that logs, before anything reaches the disk, and by delivery for the texts of errors. A `Redactor`
never changes; the functions of this module are those of one without settings. The guarantee: a text under a name of a
credential, a credential in a URL, and a token that can be told by its shape are replaced by `HIDDEN`, however deep they
stand; numbers and special tokens of a tokenizer (`num_memory_tokens=8`, `pad_token="<pad>"`) stay. It takes time that
is linear in the length of a text; only patterns of the user's own may take more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, final

from tracelet.core.records import DEFINE_PREFIX, MetricType, is_reference
from tracelet.utils.credential_names import Grade, grade_of
from tracelet.utils.token_shapes import hide_tokens
from tracelet.utils.values import flatten

HIDDEN: Final = "<hidden>"
"""Stands where a credential stood."""

# -- values that are none ----------------------------------------------------------------------------------------------

_SPECIAL_TOKEN: Final = re.compile(r"<[^<>]{1,60}>|\[[^\[\]]{1,60}\]|</?s>")
_REFERENCE: Final = re.compile(r"\$\w+|\$?\{[^{}]*\}|\$?\{\{[^{}]*\}\}|%\w+%|\*+|[Nn]one|[Nn]ull|[Tt]rue|[Ff]alse")
_NUMBER: Final = re.compile(r"[+-]?\d[\d_.eE+-]*")
_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{16,}")
_CHANGES: Final = re.compile(r"[A-Za-z](?=\d)|\d(?=[A-Za-z])")  # From letters to digits or back.
_HEXADECIMAL: Final = re.compile(r"(?:[0-9a-fA-F]-?){32,}")


def _looks_random(text: str) -> bool:
    """Whether a text is more likely a key than a word: `resnet50-imagenet-a1` is none."""
    runs = () if " " in text else _RUN.findall(text)
    return any(len(_CHANGES.findall(run)) >= 3 for run in runs) or _HEXADECIMAL.fullmatch(text) is not None


def _is_mixed(text: str) -> bool:
    """Whether what stands behind `token:` in prose is no word of a language."""
    return len(text) >= 8 and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


# -- places in texts ---------------------------------------------------------------------------------------------------

_LEAST_PASSWORD: Final = 1000  # Less is a number about one: `password_length=12`.
_SHORTEST: Final = 12  # No token of `token_shapes` is shorter.
_USER_INFO: Final = re.compile(r"(?<=://)(?!git@)[^/\s?#\"'<>]*@")
_QUERY: Final = re.compile(r"([?&;#]([^=&;#?\s]{1,100})=)([^&;#\s\"'<>]+)")
_SIGNATURES: Final = frozenset({"sig", "signature", "x-amz-signature", "x-amz-credential", "x-goog-signature"})
_SIGN: Final = re.compile("[=: ]")
_NAMES: Final = re.compile(r"secret|passw|passphrase|passcode|pass\b|pwd|token|key|auth|cred|jwt|bearer|pat\b")
_COOKIE: Final = re.compile(r"(?<!\w)((?:set-)?cookie[\"']?[ \t]{0,2}:[ \t]{0,2}[\"']?)[^\n\"']{6,}", re.I)
_NAMED: Final = re.compile(
    # `key=`, `"key": `, `environ['key'] = `, `key: str = `, `--key `; what stands in front of the value.
    r"(?<![\w.-])(?P<option>--?)?(?P<quote>\\{0,2}[\"'])?(?P<key>[A-Za-z_][\w.-]{0,80})(?:\\{0,2}[\"'])?\]?"
    r"(?:[ \t]{0,2}(?P<sign>:[ \t]{0,2}[A-Za-z_][\w.\[\]| ]{0,40}?[ \t]{0,2}=(?!=)|=>|[:=!]?=|:)[ \t]{0,2}"
    r"|(?(option)[ \t]{1,2}(?!-)|(?!)))"
)
_VALUE: Final = re.compile(
    r"(?P<mark>\$?\{\{[^{}\n]{0,80}\}\}|<[^<>\n]{1,60}>)|\\{1,2}[\"'](?P<escaped>[^\"'\\\n]+)"
    r"|\[?\"(?P<double>(?:[^\"\\\n]|\\.)+)|\[?'(?P<single>(?:[^'\\\n]|\\.)+)|(?P<bare>[^\s\"'`,;&|]{1,128})"
)
_REST: Final = re.compile(r"[^\s\"'`,;&|]*")  # Of a bare value that is longer: to look at it as a whole takes too long.
_CODE: Final = re.compile(  # A call, an attribute, a type: no literal.
    r"[A-Za-z_][\w.]*[(\[].*"
    r"|(?:args|cfg|cls|conf|config|ctx|env|kwargs|options|opts?|os|params|request|self|settings)\.[\w.]+"
    r"|[Aa]ny|bool|bytes|int|object|[Oo]ptional|SecretStr|str|[Ss]tring"
)
_CLOSING: Final = ")]}>:.!?"
_USERS: Final = frozenset({"u", "user", "proxy-user"})  # Of curl: `-u me:x`


@final
class Redactor:
    """See the module docstring."""

    def __init__(self, names: Iterable[str] = (), patterns: Iterable[str] = (), keep: Iterable[str] = ()) -> None:
        """Add to what is known.

        Args:
            names: Fields whose values are hidden; `-`, `_` and case do not matter.
            patterns: Regular expressions; what they match is hidden, or their group `secret` if they have one.
            keep: Fields whose values stay, whatever their names say.
        """
        self.rules: Final = {"names": [*names], "patterns": [*patterns], "keep": [*keep]}
        """What makes the same one in another process."""
        self._names = frozenset(map(_plain, self.rules["names"]))
        self._keep = frozenset(map(_plain, self.rules["keep"]))
        self._patterns = tuple(re.compile(pattern) for pattern in self.rules["patterns"])
        self._grade = functools.lru_cache(4096)(self._grade_of)

    def params(self, params: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """The leaves of nested parameters, as `flatten` gives them, without credentials."""
        for name, value in flatten(params, prefix):
            yield name, self.value(name, value)

    def value(self, name: str, value: Any) -> Any:
        """The JSON-like value under a name of levels divided by `/`, without credentials."""
        return self._value(value, self._highest(name.split("/")) if "/" in name else self._grade(name))

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """A command line without credentials: `--token x`, `--token=x`, `token=x`, `-u me:x`."""
        made: list[str] = []
        option = ""
        for argument in arguments:
            name, sign, value = argument.partition("=")
            if option and not argument.startswith("-"):
                made.append(self._argument(option, argument))
            elif sign and "://" not in name and " " not in name:
                made.append(f"{name}={self._argument(name, value)}")
            else:
                made.append(self.clean(argument))
            option = argument if argument.startswith("-") and not sign else ""
        return made

    def clean(self, text: str) -> str:
        """A program's text (a line of the console, a diff, an error, a URL) without credentials.

        Besides what `without_tokens` finds, that is what stands behind a name: `password=x`, `"api_key": "x"`.
        """
        text = self.without_tokens(text)
        if _SIGN.search(text) and (self._names or _NAMES.search(text.lower())):
            text = "".join(self._without_values(text))
        return _COOKIE.sub(rf"\1{HIDDEN}", text) if "ookie" in text else text

    def without_tokens(self, text: str) -> str:
        """A person's text without what is a credential by its shape or by its place in a URL, and nothing else."""
        if "://" in text:
            text = _USER_INFO.sub(f"{HIDDEN}@", text)
            text = _QUERY.sub(self._queried, text)
        for pattern in self._patterns:
            text = pattern.sub(_without_match, text)
        return hide_tokens(text, HIDDEN) if len(text) >= _SHORTEST else text

    def record(self, name: str, value: Any, kind: MetricType, metadata: Any) -> tuple[str, Any, Any]:
        """The name, value and metadata of a record on its way to the disk.

        Paths of files stay; the URI of a reference is that of its metadata. Texts and tables are the user's own, and
        lose only what `without_tokens` finds.
        """
        if kind in (MetricType.PARAMETER, MetricType.CUSTOM):
            name = self.without_tokens(name)
            if not name.startswith(DEFINE_PREFIX):  # The name of a metric says nothing of its x-axis.
                value = self.value(name, value)
        elif kind in (MetricType.TEXT, MetricType.TABLE):
            name, value = self.without_tokens(name), self.texts(value)
        kept = self._value(metadata, Grade.PLAIN) if metadata else metadata
        return name, kept["reference"] if is_reference(value, metadata) else value, kept

    def texts(self, value: Any) -> Any:
        """The same for each text in a JSON-like value: a table, say."""
        if isinstance(value, str):
            return self.without_tokens(value)
        if isinstance(value, list):
            return [self.texts(item) for item in value]
        return {key: self.texts(item) for key, item in value.items()} if isinstance(value, dict) else value

    # -- inside --------------------------------------------------------------------------------------------------------

    def _value(self, value: Any, grade: Grade) -> Any:
        if isinstance(value, str):
            return HIDDEN if value and self._is_hidden(value, grade) else self.clean(value)
        if isinstance(value, Mapping):
            return {key: self._value(item, max(grade, self._grade(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, grade) for item in value]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        least = {Grade.SECRET: _LEAST_PASSWORD, Grade.NAMED: 0}.get(grade) if is_number else None
        return HIDDEN if least is not None and abs(value) >= least else value

    def _is_hidden(self, text: str, grade: Grade) -> bool:
        if grade is Grade.PLAIN or text.startswith(HIDDEN) or _REFERENCE.fullmatch(text):
            return False
        if grade >= Grade.SECRET:
            return True
        return not _SPECIAL_TOKEN.fullmatch(text) and (grade is Grade.CREDENTIAL or _looks_random(text))

    def _highest(self, names: Iterable[str]) -> Grade:
        return max(map(self._grade, names))

    def _grade_of(self, name: str) -> Grade:
        plain = _plain(name)
        if plain in self._keep:
            return Grade.PLAIN
        return Grade.NAMED if plain in self._names else grade_of(name)

    def _argument(self, name: str, value: str) -> str:
        name = name.lstrip("-+~")
        user, divider, _ = value.partition(":")
        if name in _USERS and divider:
            return f"{user}:{HIDDEN}"
        grade = self._highest(re.split("[./]", name))
        is_hidden = self._is_hidden(value, grade) and (grade >= Grade.SECRET or not _NUMBER.fullmatch(value))
        return HIDDEN if value and is_hidden else self.clean(value)

    def _queried(self, match: re.Match[str]) -> str:
        key, value = match[2], match[3]
        grade = Grade.CREDENTIAL if key.lower() in _SIGNATURES else self._grade(key)
        return match[1] + HIDDEN if self._is_hidden(value, grade) else match[0]

    def _without_values(self, text: str) -> Iterator[str]:
        """The parts of a text, without what stands behind the name of a credential."""
        done = place = 0
        while (named := _NAMED.search(text, place)) is not None:
            place = named.end("key")  # Not that of the value: in `error: token=x` it has a name of its own.
            grade = self._highest(named["key"].split("."))
            value = None if grade is Grade.PLAIN else _VALUE.match(text, named.end())
            if value is not None and (literal := self._literal(named, value, grade)):
                start = value.start(value.lastgroup or 0)
                yield text[done:start] + HIDDEN
                done = start + len(literal)
                if value["bare"] and done == value.end() and (rest := _REST.match(text, done)):
                    done = rest.end()
                place = done
        yield text[done:]

    def _literal(self, named: re.Match[str], value: re.Match[str], grade: Grade) -> str:
        """What has to be hidden of a value in a text; nothing where it is no credential."""
        kind, found = value.lastgroup, value[value.lastgroup or 0]
        if kind == "mark" or not self._is_hidden(found, grade) or (grade < Grade.SECRET and _NUMBER.fullmatch(found)):
            return ""
        if kind != "bare":
            return found
        word = found.rstrip(_CLOSING)
        is_variable = named["key"].rpartition(".")[2] == word or _CODE.fullmatch(found) or _CODE.fullmatch(word)
        # As in `The key: use less of it`.
        is_prose = named["sign"] == ":" and not named["quote"] and named["key"].isalpha() and not _is_mixed(word)
        return "" if is_variable or (is_prose and grade < Grade.SECRET) or not self._is_hidden(word, grade) else word


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _without_match(match: re.Match[str]) -> str:
    if match.re.groupindex.get("secret") is None or match["secret"] is None:
        return HIDDEN
    start, end = (place - match.start() for place in match.span("secret"))
    return match[0][:start] + HIDDEN + match[0][end:]


# -- without settings --------------------------------------------------------------------------------------------------

_DEFAULT: Final = Redactor()


def redacted(params: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested parameters, as `flatten` gives them, without credentials."""
    return _DEFAULT.params(params, prefix)


def clean(text: str) -> str:
    """One text without credentials: a line of the console, a diff, an error, a URL. See `Redactor.clean`."""
    return _DEFAULT.clean(text)


def cleaned(value: Any) -> Any:
    """A JSON-like value without credentials, its names looked at."""
    return _DEFAULT.value("", value)
