"""Which series of many: by patterns, or the ones that people look at first. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from tracelet.errors import UsageError
from tracelet.utils.text import did_you_mean

_DULL: Final = re.compile(r"(?:^|/)(?:epoch|global_step|step|iteration|lr|lr-[^/]*|learning_rate|time|.*_per_second)$")
_GOALS: Final = ("acc", "f1", "auc", "score", "bleu", "miou", "map", "r2", "error", "loss")
_STAGES: Final = ("val", "eval", "test", "train")


def main_metrics(names_by_run: Iterable[Collection[str]], count: int) -> list[str]:
    """The metrics that half of the runs have, at least; validation before training, and results before the rest.

    Args:
        names_by_run: The names that each run has.
        count: How many at most.
    """
    runs = Counter(name for names in names_by_run for name in names)
    often = max(runs.values(), default=0) / 2

    def place(name: str) -> tuple[bool, bool, tuple[int, int], int, str]:
        return _DULL.search(name) is not None, runs[name] < often, _interest(name), -runs[name], name

    return sorted(runs, key=place)[:count]


def _interest(name: str) -> tuple[int, int]:
    lower = name.lower()
    goal = next((index for index, word in enumerate(_GOALS) if word in lower), len(_GOALS))
    stage = next((index for index, word in enumerate(_STAGES) if re.search(rf"(?<![a-z]){word}", lower)), len(_STAGES))
    return (stage if goal < len(_GOALS) else len(_STAGES) + 1, goal)


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that patterns such as `val/*` mean, in the order of the patterns, each once.

    Raises:
        UsageError: A pattern means none; the text names near ones.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        # The name itself comes first: it may hold a `[` or `*`.
        matches = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            known = f"{', '.join(names[:10])}{', …' if len(names) > 10 else ''}" or "none"
            raise UsageError(f"no metric answers to {pattern!r}{did_you_mean(pattern, names)}; there are: {known}")
        found |= dict.fromkeys(matches)
    return list(found)


def natural(name: str) -> list[tuple[int, str]]:
    """What to sort names by, so that `layer/2` comes before `layer/10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]
