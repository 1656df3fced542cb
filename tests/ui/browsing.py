"""A server of `tracelet ui` on a thread, and a real headless Chromium to look at it with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tracelet.ui.server import listen, make_app

TOKEN = "token-of-the-tests"
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The address of a server of the runs in `directory`."""
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(directory, TOKEN), log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


class Browser:
    """Chromium, with what the tests do again and again."""

    def __init__(self, address: str, downloads: Path, token: str = TOKEN) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in [*_FLAGS.split(), f"--user-data-dir={downloads / 'profile'}"]:
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
        self.driver.set_page_load_timeout(60)
        self.address = address
        self.size(1400, 900)
        self.open(f"/?token={token}")

    def size(self, width: int, height: int) -> None:
        """Of the window, in pixels."""
        self.driver.set_window_size(width, height)

    def open(self, path: str) -> None:
        """Open a page and wait for it."""
        self.driver.get(self.address + path)
        self.wait(lambda: self.all("#page > div"))
        self.settle()

    def settle(self) -> None:
        """Wait until the charts that are seen are drawn."""
        self.wait(lambda: not self.run("return document.querySelector('main[aria-busy]')"))
        seen = "[...document.querySelectorAll('.chart .plot')].filter(p => p.getBoundingClientRect().top < innerHeight)"
        self.wait(lambda: self.run(f"return {seen}.every(p => !p.classList.contains('waiting'))"))

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until it holds; gives what it gave."""
        return WebDriverWait(self.driver, 30, poll_frequency=0.05).until(lambda _: condition())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """The elements that a CSS selector means."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "#page") -> str:
        """The text of the first of them."""
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def complaints(self) -> list[str]:
        """What the browser's console has got since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
