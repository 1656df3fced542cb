from __future__ import annotations

import json
import subprocess

import pytest

from tracelet.delivery.retry import Backoff, Verdict, judge
from tracelet.errors import MissingDependencyError, PermanentError, RejectedError, RetryableError, SettingsError


class SdkError(Exception):
    """An SDK's own error."""


class HttpError(OSError, ValueError):
    """As `requests` has one: two kinds at once."""


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (RetryableError(), Verdict.RETRY),
        (ConnectionRefusedError(), Verdict.RETRY),
        (TimeoutError(), Verdict.RETRY),
        (HttpError(), Verdict.RETRY),
        (SdkError(), Verdict.RETRY),
        (RuntimeError(), Verdict.RETRY),
        (MemoryError(), Verdict.RETRY),
        (subprocess.TimeoutExpired("sdk", 1.0), Verdict.RETRY),
        (json.JSONDecodeError("an error page", "<html>", 0), Verdict.RETRY),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "an error page"), Verdict.RETRY),
        (RejectedError(), Verdict.REJECT),
        (ValueError(), Verdict.REJECT),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "a lone surrogate"), Verdict.REJECT),
        (TypeError(), Verdict.REJECT),
        (KeyError(), Verdict.REJECT),
        (AttributeError(), Verdict.REJECT),
        (OverflowError(), Verdict.REJECT),
        (AssertionError(), Verdict.REJECT),
        (PermanentError(), Verdict.GIVE_UP),
        (MissingDependencyError(), Verdict.GIVE_UP),
        (SettingsError(), Verdict.GIVE_UP),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_verdict_on_an_error(error: Exception, verdict: Verdict):
    assert verdict is judge(error)


def test_delays_grow_up_to_a_limit_and_begin_anew_after_a_success():
    backoff = Backoff(first_delay_s=0.5, longest_delay_s=8.0)
    for attempt in range(50):
        limit_s = min(0.5 * 2**attempt, 8.0)
        assert 0.0 <= backoff.next_delay_s() <= limit_s
    assert max(backoff.next_delay_s() for _ in range(200)) > 4.0  # With full jitter, half of them are.
    backoff.reset()
    assert backoff.next_delay_s() <= 0.5
