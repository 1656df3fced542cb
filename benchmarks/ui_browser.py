"""The page of `tracelet ui` in a real headless Chromium: a run of ten million points in a hundred charts on one page.

A pause is the time between two frames, in which the page answers nothing; the longest one of each phase is printed. The
browser draws without a graphics card and shares the machine with the server. The first chart is one of a server that
has read nothing yet, in a browser that has kept nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, final

from benchmarks.measuring import Row, Target, scaled, show
from benchmarks.ui import LIVE_PER_S, POINTS, SERIES, TOKEN, experiment, server, write_large

_LIVE_S: Final = 12.0
_LONGEST_MS: Final = 200
_SETTLE_S: Final = 1.0

_WATCH: Final = """
const seen = window.seen = { pauses: [], first: null, all: null };
let last = performance.now();
requestAnimationFrame(function frame(now) {
  seen.pauses.push(now - last);
  last = now;
  const isOnScreen = ({ top, bottom }) => bottom > 0 && top < innerHeight;
  const all = [...document.querySelectorAll(".chart .plot")];
  const plots = all.filter((plot) => isOnScreen(plot.getBoundingClientRect()));
  const drawn = plots.filter((plot) => plot._fullLayout && !plot.classList.contains("waiting"));
  if (drawn.length) seen.first ??= now;
  seen.all = plots.length && drawn.length === plots.length ? seen.all ?? now : null;
  requestAnimationFrame(frame);
});
"""
_SCROLL: Final = """
const done = arguments[0];
requestAnimationFrame(function step() {
  const before = scrollY;
  scrollBy(0, 25);
  if (scrollY === before) done();
  else requestAnimationFrame(step);
});
"""
_NEWEST: Final = """
const plot = document.querySelector(".chart .plot");
return plot._fullLayout && plot.data.length ? (Date.now() - Date.parse(plot.data[0].x.at(-1))) / 1e3 : null;
"""


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    points = scaled(POINTS, scale, SERIES)
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as place:
        directory = Path(place) / "runs"
        directory.mkdir()
        _in_process(write_large, directory, points).join()
        with server(directory) as (address, _), _opened(address, Path(place)) as page:
            rows = [*_large(page), *_live(page, directory, _LIVE_S * min(1.0, scale * 10))]
    show(f"tracelet ui in Chromium: {points:,} points, {SERIES} charts", rows)


@final
class _Page:
    """What is looked at."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def pause_ms(self, act: Callable[[], Any]) -> float:
        """The longest pause from the beginning of an act until the page has settled afterwards."""
        self.browser.run("window.seen && (seen.pauses.length = 0)")
        act()
        self.browser.wait(lambda: self.browser.run("return window.seen && seen.all"))
        time.sleep(_SETTLE_S)  # Requests, turns and the debounces of Plotly.
        return float(self.browser.run("return Math.max(...seen.pauses)"))

    def row(self, what: str, act: Callable[[], Any]) -> Row:
        """The longest pause, as a row."""
        pause_ms = self.pause_ms(act)
        return Row(f"longest pause, {what}", f"{pause_ms:.0f} ms", target=Target(pause_ms, _LONGEST_MS, "ms"))


@contextlib.contextmanager
def _opened(address: str, scratch: Path) -> Iterator[_Page]:
    from tests.ui.browsing import Browser

    browser = Browser(address, scratch / "browser", TOKEN)
    try:
        browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
        yield _Page(browser)
    finally:
        browser.driver.quit()


def _large(page: _Page) -> Iterator[Row]:
    from selenium.webdriver.common.action_chains import ActionChains

    browser = page.browser
    address = f"{browser.address}/run?run=large&tab=charts"
    first_ms = page.pause_ms(lambda: browser.driver.get(address))
    moments = browser.run("return [seen.first, seen.all]")
    yield Row("first chart; all on the screen", " s; ".join(f"{moment_ms / 1e3:.1f}" for moment_ms in moments) + " s")
    yield Row("longest pause, Plotly is loaded for the first time", f"{first_ms:.0f} ms")
    yield page.row("opening the charts", lambda: browser.driver.get(address))
    yield page.row("scrolling through all charts", lambda: browser.driver.execute_async_script(_SCROLL))
    yield page.row("… the window gets narrower", lambda: browser.size(1000, 900))
    browser.size(1400, 900)
    browser.run("scrollTo(0, 0)")
    page.pause_ms(lambda: None)
    plot = browser.all(".nsewdrag")[0]

    def moves() -> ActionChains:
        return ActionChains(browser.driver, duration=20)

    pointing = moves().move_to_element_with_offset(plot, -60, 0)
    for _ in range(30):
        pointing.move_by_offset(4, 0)
    yield page.row("the pointer moves, shown in all", pointing.perform)
    zooming = moves().move_to_element_with_offset(plot, -60, 0).click_and_hold()
    for _ in range(10):
        zooming.move_by_offset(9, 0)
    yield page.row("zooming in", zooming.release().perform)
    yield page.row("zooming out", moves().move_to_element(plot).double_click().perform)


def _live(page: _Page, directory: Path, duration_s: float) -> Iterator[Row]:
    browser = page.browser
    writer = _in_process(_write_live, directory, duration_s)
    browser.wait(lambda: any(directory.glob("*/live/*.seg")))
    browser.driver.get(f"{browser.address}/run?run=live&tab=charts&x=wall")
    ages_s: list[float] = []

    def look() -> None:
        while writer.is_alive():
            if (age_s := browser.run(_NEWEST)) is not None and writer.is_alive():
                ages_s.append(age_s)
            time.sleep(0.1)

    yield page.row(f"live, {LIVE_PER_S:,} records/s", look)
    yield Row("live: how old the newest point on the screen is, at most", f"{max(ages_s, default=0.0):.1f} s")


def _write_live(directory: Path, duration_s: float) -> None:
    end_s = time.monotonic() + duration_s
    with experiment(directory, "live") as run:
        step = 0
        while time.monotonic() < end_s:
            for index in range(SERIES):
                run.log_metric(f"metric/{index}", random.random(), step)
            step += 1
            time.sleep(SERIES / LIVE_PER_S)


def _in_process(function: Callable[..., None], *arguments: Any) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    return process


if __name__ == "__main__":
    main()
