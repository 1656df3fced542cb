"""`tracelet report`: one file that shows runs by itself; and runs in notebooks."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.ui.browsing import Browser
from tests.ui.demo import HOSTILE, experiment
from tracelet import load_run
from tracelet.cli import make_app
from tracelet.errors import UsageError
from tracelet.ui.report import MAX_CHARTS, Wish, report


@pytest.fixture
def browser(started: Browser) -> Browser:
    return started


def see(browser: Browser, page: str, file: Path) -> None:
    """Open a report and every part of it, and wait until all charts are drawn."""
    file.write_text(page)
    browser.complaints()
    browser.driver.get(file.as_uri())
    browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    for plot in browser.all(".plot"):
        browser.run("arguments[0].scrollIntoView()", plot)
        browser.wait(lambda plot=plot: browser.run("return !!arguments[0].querySelector('.main-svg')", plot))


def test_every_chart_of_several_runs_is_drawn_and_can_be_made_logarithmic(runs, browser, tmp_path):
    found = [load_run(f"study{index}", runs) for index in range(3)]
    see(browser, report(found, Wish("Three rates", smooth=0.5)), tmp_path / "report.html")
    assert "Three rates" == browser.text("h1")
    names = {card.text.split("\n")[0] for card in browser.all(".plots h2")}
    assert {"train/loss", "train/lr", "val/loss", "val/accuracy", "epoch"} <= names
    drawn = "return document.querySelector('[aria-label=\"Curves of train/loss\"]').%s"
    assert 6 == browser.run(drawn % "data.length")  # The values and the average, of three runs.
    browser.run("document.querySelector('[aria-label$=\"y-axis of train/loss\"]').click()")
    assert "log" == browser.run(drawn % "layout.yaxis.type")
    browser.run("document.getElementById('differing').click()")
    shown = browser.run("return [...document.querySelectorAll('tr.same')].filter(row => row.offsetParent).length")
    assert 0 == shown
    assert [] == browser.complaints()


def test_a_picture_that_is_superseded_is_not_in_the_page(tmp_path):
    with experiment(tmp_path, "rewound", run_id="rewound") as run:
        run.log_image("sample", np.zeros((1, 1), np.uint8), 2)
        run.log_image("sample", np.zeros((1, 1), np.uint8), 4)
        run.rewind(3)
    page = report([load_run("rewound", tmp_path)], Wish("Rewound"))
    assert "step 2" in page
    assert "step 4" not in page


def test_a_run_with_everything_shows_it_and_a_hostile_one_runs_nothing(runs, browser, tmp_path):
    found = [load_run(name, runs) for name in ("everything", "hostile")]
    see(browser, report(found, Wish(HOSTILE)), tmp_path / "report.html")
    text = browser.text("main")
    assert "A small classifier with one record of each kind." in text
    assert "epoch 29: loss" in text
    assert HOSTILE in text
    assert 1 == len(browser.all(".pictures img"))
    assert 64 == browser.run("return document.querySelector('.pictures img').naturalWidth")
    assert 0 == len(browser.all("img[src=x]"))
    assert 3 == len(browser.all("script"))  # The data, plotly, and our own.
    assert [] == browser.complaints()  # Chromium would tell of a script that the policy refuses.


def test_the_file_asks_for_nothing_from_anywhere(runs):
    page = report([load_run("study0", runs)], Wish("x"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1].partition("script-src")[2].partition(";")[0]
    assert [] == re.findall(r"<(?:link|iframe|script|img)[^>]+(?:src|href)=\"?http", page)


def test_values_that_cant_be_drawn_are_marked(runs):
    page = report([load_run("everything", runs)], Wish("x", metrics=["train/loss"]))
    data = re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    ((_, figure),) = json.loads(html.unescape(data[1])).items()
    assert ["nan", "nan", "inf"] == figure["data"][-1]["text"]


def test_more_charts_than_a_page_can_hold_are_refused_with_what_to_type(tmp_path):
    run = experiment(tmp_path, "many")
    run.start()
    run.log_metrics({f"layer{index}/norm": 1.0 for index in range(MAX_CHARTS + 1)}, 0)
    run.stop()
    with pytest.raises(UsageError, match=rf"{MAX_CHARTS + 1} charts .* --metric 'layer0/\*'"):
        report([load_run("many", tmp_path)], Wish("x"))


def test_the_command_writes_the_runs_that_it_names(runs, tmp_path):
    def tracelet(*arguments: str) -> Result:
        return CliRunner().invoke(make_app(), ["report", *arguments, "--dir", str(runs)], prog_name="tracelet")

    result = tracelet("study1", "study2", "-o", str(tmp_path / "out.html"), "--metric", "val/*")
    assert result.stdout.startswith("2 runs in ")
    assert "Curves of val/loss" in (tmp_path / "out.html").read_text()
    wrong = tracelet("study1", "--smooth", "1.5")
    assert 1 == wrong.exit_code
    assert "--smooth is a weight" in wrong.stderr


def test_a_run_plots_itself_beside_others(runs):
    run, other = (load_run(name, runs) for name in ("study0", "study1"))
    figure = run.plot("val/*", others=[other], smooth=0.9, log_y=True)
    assert 8 == len(figure.data)
    assert "log" == figure.layout.yaxis.type
    np.testing.assert_array_equal(run.live("val/accuracy").values, figure.data[0].y)
    with pytest.raises(UsageError, match="smooth is the weight"):
        run.plot(smooth=1)
    with pytest.raises(UsageError, match="no metric answers to 'loss'"):
        run.plot("loss")


def test_a_notebook_shows_a_run_without_running_its_names(runs):
    shown = load_run("hostile", runs)._repr_html_()
    assert html.escape(HOSTILE) in shown
    assert "<img" not in shown
    shown = load_run("study0", runs)._repr_html_()
    assert all(part in shown for part in ("val/loss", "lr", "finished"))
