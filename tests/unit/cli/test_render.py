from __future__ import annotations

import math

import numpy as np
import pytest

from tracelet.cli._render import ago, clean, clip, duration, number, signed, sparkline, strict
from tracelet.utils.choosing import main_metrics


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (12.0, "12"),
        (0.1 + 0.2, "0.3"),
        (0.99999, "1.0000"),
        (0.123456, "0.1235"),
        (-0.00123456, "-0.001235"),
        (1234.5678, "1235"),
        (123456.7, "123457"),
        (1e6, "1000000"),
        (12345678.9, "1.235e+07"),
        (0.00001234, "1.234e-05"),
        (1e300, "1.000e+300"),
        (5e-324, "4.941e-324"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_show_what_matters(value, text):
    assert text == number(value)


def test_differences_have_a_sign():
    assert ["+0.5", "-0.5", "0", "NaN"] == [signed(value) for value in (0.5, -0.5, 0.0, math.nan)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 m 00 s"), (7620, "2 h 07 m"), (273_600, "3 d 04 h")],
)
def test_durations_are_short(seconds, text):
    assert text == duration(seconds)


def test_times_are_told_by_how_long_they_are_past(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_790_000_000.0)
    past = [ago(1_790_000_000 - seconds) for seconds in (5, 90, 3 * 3600, 2 * 86_400, 8 * 86_400, -60)]
    assert ["just now", "1 min ago", "3 h ago", "2 d ago", "2026-09-13", "2026-09-21"] == past
    assert "1.000e+30" == ago(1e30)


def test_a_clean_text_has_no_commands_and_stays_distinct():
    assert r"a\x1b[31m\n\u202e\ud800ü😀" == clean("a\x1b[31m\n\u202e\ud800ü😀")
    assert "plain [bold] text" == clean("plain [bold] text")


def test_a_text_is_cut_by_the_columns_that_it_takes():
    assert "日本語…" == clip("日本語日本語", 7).plain
    assert 80 == clip("x" * 1_000_000, 80).cell_len


def test_sparklines_show_the_course():
    assert "▁▅█" == sparkline(np.array([0.0, 0.5, 1.0]), 12)
    assert "▁█" == sparkline(np.array([1.0, 1.0, 2.0, 2.0]), 2)
    assert "▅▅" == sparkline(np.array([3.0, 3.0]), 12)
    assert "▅" * 12 == sparkline(np.full(184, 0.001), 12)  # Their sum is rounded.
    assert "▁·█" == sparkline(np.array([-1.7e308, math.nan, 1.7e308]), 12)
    assert "" == sparkline(np.array([]), 12)


def test_json_has_texts_for_what_is_no_number():
    assert {"a": ["NaN", "Infinity", "-Infinity", 1.5], "1": None} == strict(
        {"a": (math.nan, math.inf, -math.inf, 1.5), 1: None}
    )


def test_the_main_metrics_are_results_that_many_runs_have():
    common = ["epoch", "lr", "train/loss", "val/loss", "val/acc", "grad_norm"]
    assert ["val/acc", "val/loss", "train/loss"] == main_metrics([common, common, [*common, "test/f1"]], 3)
    assert ["grad_norm", "epoch"] == main_metrics([["epoch", "grad_norm"]], 3)
    assert [] == main_metrics([], 3)
