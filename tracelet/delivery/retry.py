"""What an error of a backend means for the records that it refused, and how long to wait. Worker threads only."""

from __future__ import annotations

import enum
import json
from typing import Final, final

from tenacity import RetryCallState, Retrying, wait_random_exponential

from tracelet.errors import MissingDependencyError, PermanentError, RejectedError, RetryableError, SettingsError

_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 60.0


@final
class Verdict(enum.Enum):
    """What to do with the records at hand."""

    RETRY = "retry"  # The backend's trouble: the same records later.
    REJECT = "reject"  # The records' fault: find the bad one, and go on without it.
    GIVE_UP = "give up"  # The user has to act first.


_AWAY: Final = (OSError, json.JSONDecodeError, UnicodeDecodeError)
_RECORDS_FAULT: Final = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError)


def judge(error: BaseException) -> Verdict:
    """What an error of a plug-in means.

    A plug-in says so itself with `RetryableError`, `RejectedError` or `PermanentError`. Of the rest, the errors that
    Python has for a value that does not fit are the record's fault; all others (connections, timeouts, the SDK's own)
    are taken for an outage, since an outage that is taken for bad records would empty the queue into `rejected.jsonl`.
    So is an answer that can't be decoded (a proxy's error page, say), though Python has a ValueError for it.
    """
    if isinstance(error, (PermanentError, MissingDependencyError, SettingsError)):
        return Verdict.GIVE_UP
    if isinstance(error, RejectedError):
        return Verdict.REJECT
    if isinstance(error, (RetryableError, *_AWAY)):  # First, since some of them are a ValueError as well.
        return Verdict.RETRY
    return Verdict.REJECT if isinstance(error, _RECORDS_FAULT) else Verdict.RETRY


def is_timeout(error: BaseException | None) -> bool:
    """Whether an answer did not come in time, by the error or one that led to it."""
    while error is not None:
        if isinstance(error, TimeoutError) or type(error).__name__ == "ReadTimeout":  # That of requests is its own.
            return True
        error = error.__cause__
    return False


@final
class Backoff:
    """The delays between attempts: exponential with full jitter, from 0.5 s up to a minute."""

    def __init__(self, first_delay_s: float = _FIRST_DELAY_S, longest_delay_s: float = _LONGEST_DELAY_S) -> None:
        self._wait = wait_random_exponential(multiplier=first_delay_s, max=longest_delay_s)
        self.reset()

    def next_delay_s(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        delay_s = self._wait(self._state)
        self._state.attempt_number += 1
        return delay_s

    def reset(self) -> None:
        """An attempt went well."""
        self._state = RetryCallState(Retrying(), None, (), {})
