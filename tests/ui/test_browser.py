"""The page in a real Chromium: what a user does, and what must not happen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.ui.browsing import Browser
from tests.ui.demo import HOSTILE, experiment

STUDY = "run=study0&run=study1&run=study2"
PAGES = {
    "runs": "/",
    "grouped": "/?group=params.lr&run=study0",
    "no run answers": "/?search=nothing-is-called-so",
    "charts": f"/charts?{STUDY}&smooth=0.6",
    "overview": "/run?run=everything&vs=study0",
    "metrics": "/run?run=everything&tab=charts",
    "no system curves": "/run?run=everything&tab=system",
    "media": "/run?run=everything&tab=media",
    "console": "/run?run=everything&tab=console",
    "code": "/run?run=everything&tab=code",
    "files": "/run?run=everything&tab=files",
    "compare": f"/compare?{STUDY}",
    "compare nothing": "/compare",
}


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """The browser, which has nothing to complain of afterwards."""
    started.size(1400, 900)
    started.complaints()
    yield started
    assert started.complaints() == []


def curves(browser: Browser, metric: str) -> list[dict[str, list[float]]]:
    """The named curves of a chart, as Plotly has them."""
    script = (
        "return document.querySelector(`[data-metric='${arguments[0]}'] .plot`).data.filter(t => t.name && !t.text)"
    )
    return browser.run(script, metric)


def test_from_the_table_to_three_runs_in_one_chart(browser):
    browser.open("/")
    assert len(browser.all("tbody tr")) == 10
    browser.all("input[type=search]")[0].send_keys("cnn-64")
    browser.wait(lambda: len(browser.all("tbody tr")) == 3)
    for box in browser.all("tbody input[type=checkbox]"):
        box.click()
    next(link for link in browser.all(".bar a.button") if link.text == "Charts").click()
    browser.wait(lambda: browser.all("[data-metric='train/loss']"))
    browser.settle()
    assert {curve["name"] for curve in curves(browser, "train/loss")} == {
        "cnn-64-lr0.001",
        "cnn-64-lr0.003",
        "cnn-64-lr0.01",
    }
    assert all(len(curve["x"]) == 400 for curve in curves(browser, "train/loss"))
    browser.driver.back()
    browser.wait(lambda: "3 selected" in browser.text())


def test_a_filter_expression_and_a_wrong_one(browser):
    browser.open("/")
    field = browser.all("input[aria-label^=Filter]")[0]
    field.send_keys("status=failed", Keys.ENTER)
    browser.wait(lambda: len(browser.all("tbody tr")) == 1)
    field.send_keys(", nonsense", Keys.ENTER)
    browser.wait(lambda: browser.all("[role=alert]"))
    assert "is no comparison" in browser.text("[role=alert]")
    assert [entry for entry in browser.complaints() if "400" not in entry] == []


def test_sorting_by_a_metric_is_in_the_address(browser):
    browser.open("/")
    next(button for button in browser.all("thead button") if button.text == "val/loss").click()
    browser.wait(lambda: "sort=metric.val" in browser.driver.current_url)
    browser.wait(lambda: browser.all("th[aria-sort=descending]"))
    browser.wait(lambda: "study0" in browser.text("tbody tr"))
    browser.open("/" + browser.driver.current_url.partition("/")[2].partition("/")[2].partition("/")[2])
    assert "study0" in browser.text("tbody tr")


def test_a_zoom_loads_all_points_in_every_chart_and_is_in_the_address(browser):
    browser.open(f"/charts?{STUDY}")
    plot = browser.all("[data-metric='train/loss'] .nsewdrag")[0]
    browser.run("arguments[0].scrollIntoView({block: 'center'})", plot)
    browser.settle()
    ActionChains(browser.driver).move_to_element_with_offset(plot, -60, 0).click_and_hold().move_by_offset(
        90, 0
    ).release().perform()
    browser.wait(lambda: "zoom=" in browser.driver.current_url)
    browser.wait(lambda: len(curves(browser, "train/loss")[0]["x"]) < 150)
    low, high = map(float, browser.driver.current_url.partition("zoom=")[2].split("%2C"))
    browser.wait(
        lambda: (
            browser.run("return document.querySelector(`[data-metric='train/lr'] .plot`).layout.xaxis.range[0]") == low
        )
    )
    steps = curves(browser, "train/loss")[0]["x"]
    assert steps == list(range(math.ceil(low) - 1, math.floor(high) + 2))
    next(button for button in browser.all("button") if button.text == "Reset zoom").click()
    browser.wait(lambda: len(curves(browser, "train/loss")[0]["x"]) == 400)


def test_a_double_click_zooms_out_in_every_chart(browser):
    browser.open(f"/charts?{STUDY}&match=^train&zoom=100,150")
    assert len(curves(browser, "train/lr")[0]["x"]) == 53
    plot = browser.all("[data-metric='train/loss'] .nsewdrag")[0]
    ActionChains(browser.driver).move_to_element(plot).double_click().perform()
    browser.wait(lambda: [len(curves(browser, f"train/{name}")[0]["x"]) for name in ("loss", "lr")] == [400, 400])
    assert "zoom=" not in browser.driver.current_url
    low, high = browser.run("return document.querySelector(`[data-metric='train/lr'] .plot`)._fullLayout.xaxis.range")
    assert low <= 0 < 399 <= high


def test_charts_take_turns_so_that_the_page_answers_in_between(browser):
    browser.open("/")
    script = """
        const done = arguments[0], order = [];
        import("/static/js/turns.js").then(({ inTurn }) => {
          const busy = (name) => () => {
            order.push(name);
            const end_ms = performance.now() + 10;
            while (performance.now() < end_ms);
            requestAnimationFrame(() => order.push("frame"));
          };
          for (const name of ["a", "b", "a", "c"]) inTurn(name, busy(name));
          inTurn("last", () => done(order));
        });
    """
    assert browser.driver.execute_async_script(script) == ["b", "frame", "a", "frame", "c", "frame"]


def test_charts_out_of_sight_wait_and_have_the_width_of_the_page_when_they_are_seen(browser, growing):
    with experiment(growing, "many", run_id="many", project="many") as run:
        run.log_metrics({f"layer/{index}": float(index) for index in range(40)}, 0)
    browser.size(1400, 500)
    browser.open("/run?run=many&tab=charts")
    drawn = "return [...document.querySelectorAll('.chart .plot')].map(plot => Boolean(plot._fullLayout))"
    assert (browser.run(drawn)[0], browser.run(drawn)[-1], len(browser.run(drawn))) == (True, False, 40)
    last = "[...document.querySelectorAll('.chart .plot')].at(-1)"
    browser.run(f"{last}.scrollIntoView()")
    browser.wait(lambda: browser.run(drawn)[-1])
    browser.run("scrollTo(0, 0)")
    browser.size(700, 500)
    fits = "(plot => plot._fullLayout.width === plot.clientWidth)"
    browser.wait(lambda: browser.run(f"return {fits}(document.querySelector('.chart .plot'))"))
    assert not browser.run(f"return {fits}({last})")
    browser.run(f"{last}.scrollIntoView()")
    browser.wait(lambda: browser.run(f"return {fits}({last})"))


def test_smoothing_and_axes_come_from_the_address_and_from_the_keys(browser):
    browser.open(f"/charts?{STUDY}&smooth=0.9&x=relative&log=y")
    layout = "return document.querySelector(`[data-metric='train/loss'] .plot`).layout"
    assert (browser.run(layout)["yaxis"]["type"], browser.run(layout)["xaxis"]["title"]["text"]) == ("log", "seconds")
    before = curves(browser, "train/loss")[0]["y"]
    slider = browser.all("input[type=range]")[0]
    slider.send_keys(Keys.ARROW_LEFT * 5)
    browser.wait(lambda: "smooth=0.85" in browser.driver.current_url)
    browser.wait(lambda: curves(browser, "train/loss")[0]["y"] != before)


def test_a_band_over_runs(browser):
    browser.open(f"/charts?{STUDY}&by=all")
    assert [curve["name"] for curve in curves(browser, "train/loss")] == ["all runs"]
    assert "all runs (3)" in browser.text(".legend")


def test_pins_and_a_regular_expression_choose_the_charts(browser):
    browser.open(f"/charts?{STUDY}&match=^val/&pin=val/loss")
    assert [chart.get_attribute("data-metric") for chart in browser.all(".chart")] == ["val/loss", "val/accuracy"]
    assert browser.text(".section h2") == "Pinned"


def test_the_pointer_is_shown_in_all_charts(browser):
    browser.open(f"/charts?{STUDY}&match=train")
    ActionChains(browser.driver).move_to_element(browser.all("[data-metric='train/loss'] .nsewdrag")[0]).perform()
    browser.wait(
        lambda: browser.all("[data-metric='train/lr'] .hoverlayer .legend, [data-metric='train/lr'] .hovertext")
    )


def test_nan_and_infinity_are_visible(browser):
    browser.open("/run?run=everything&tab=charts")
    assert "3 not finite" in browser.text("[data-metric='train/loss'] footer")


def test_a_running_training_is_followed(browser, growing):
    run = experiment(growing, "live", run_id="live", project="live")
    run.start()
    run.log_metric("loss", 1.0, 0)
    browser.open("/run?run=live&tab=charts")
    browser.wait(lambda: browser.text("#live") == "live")
    for step in range(1, 500):
        run.log_metric("loss", 1 / step, step)
    browser.wait(lambda: curves(browser, "loss")[0]["x"][-1] == 499)
    run.log_metric("new", 1.0, 0)
    browser.wait(lambda: browser.all("[data-metric='new']"))
    assert browser.run("return document.querySelector('.chip').textContent") == "running"
    run.stop()
    browser.wait(lambda: browser.text("#live") == "")
    browser.open("/run?run=live")
    assert browser.text(".chip") == "finished"


def test_runs_are_compared(browser):
    browser.open(f"/compare?{STUDY}")
    rows = {row.text.split()[0]: row.text.split()[1:] for row in browser.all("tr.differs")}
    assert rows["lr"] == ["0.001", "0.003", "0.01"]
    assert "width" not in rows
    assert len(browser.all("svg.parallel path")) == 3
    browser.wait(lambda: len(browser.all(".scatterlayer .point")) == 3)


def test_charts_and_files_are_downloaded(browser, started):
    folder = Path(started.driver.capabilities["chrome"]["userDataDir"]).parent
    browser.open(f"/charts?{STUDY}&match=train/loss")
    for title in ("Save as PNG", "Save as SVG", "All points as CSV"):
        browser.all(f"[title='{title}']")[0].click()
    expected = {"train_loss.png": b"\x89PNG", "train_loss.svg": b"<svg", "tracelet.csv": b"run,metric,step"}
    browser.wait(lambda: {file.name for file in folder.iterdir()} >= {*expected})
    browser.open("/run?run=hostile&tab=files")
    for link in browser.all("#page td a"):
        link.click()
    browser.wait(lambda: {file.name for file in folder.iterdir()} >= {"evil.svg", "evil.html"})
    assert {name: (folder / name).read_bytes()[: len(start)] for name, start in expected.items()} == expected


def test_the_theme_is_kept(browser):
    browser.open("/")
    background = "return getComputedStyle(document.documentElement).backgroundColor"
    light = browser.run(background)
    browser.all("#theme")[0].click()
    dark = browser.run(background)
    browser.open(f"/charts?{STUDY}")
    assert light != dark == browser.run(background)
    ActionChains(browser.driver).send_keys("t").perform()
    assert browser.run(background) == light


def test_the_search_has_a_key_and_tabs_have_arrows(browser):
    browser.open("/")
    ActionChains(browser.driver).send_keys("/").perform()
    assert browser.run("return document.activeElement.type") == "search"
    browser.open("/run?run=everything")
    browser.all("[role=tab]")[0].send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    browser.wait(lambda: "tab=charts" in browser.driver.current_url)


@pytest.mark.parametrize(
    "page", ["/", f"/charts?{STUDY}", "/run?run=everything", f"/compare?{STUDY}", "/run?run=hostile"]
)
def test_a_small_screen_needs_no_scrolling_sideways(browser, page):
    browser.size(500, 800)  # Chromium makes no smaller window.
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_killed_damaged_and_unreadable_runs_are_shown_as_such(browser):
    browser.open("/run?run=killed")
    assert "never said that it ended" in browser.text()
    browser.open("/run?run=damaged")
    assert "1 damaged records" in browser.text()
    browser.open("/")
    assert "digits/broken can't be read" in browser.text()


@pytest.mark.parametrize("tab", ["overview", "charts", "media", "console", "files"])
def test_nothing_of_a_hostile_run_runs(browser, tab):
    browser.run("window.name = ''")
    for page in (f"/run?run=hostile&tab={tab}", "/charts?run=hostile", "/compare?run=hostile&run=study0", "/"):
        browser.open(page)  # A dialog would raise here.
        assert browser.run("return document.querySelectorAll('main script, main img[src=x], main iframe').length") == 0
        assert browser.run("return [...document.querySelectorAll('a')].every(a => !/^javascript:/.test(a.href))")
    assert HOSTILE in browser.text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_no_serious_fault(browser, page, theme):
    browser.run("localStorage.setItem('tracelet-theme', arguments[0])", theme)
    browser.open(PAGES[page])
    browser.run((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then(found => done(found.violations))"
    )
    serious = {
        fault["id"]: [node["html"][:150] for node in fault["nodes"][:3]]
        for fault in found
        if fault["impact"] in ("serious", "critical")
    }
    assert serious == {}
