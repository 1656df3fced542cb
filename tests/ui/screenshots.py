"""Makes the pictures of the page in docs/images: `make screenshots`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.ui import demo
from tests.ui.browsing import Browser, serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"
STUDY = "&".join(f"run=study{index}" for index in range(3))
PICTURES = {
    "runs": ("light", "/?group=params.lr&filter=tag.team=vision&run=study0&run=study1&run=study2"),
    "charts": ("light", f"/charts?{STUDY}&smooth=0.8&match=^train/loss|^val"),
    "charts-dark": ("dark", f"/charts?{STUDY}&smooth=0.8&match=^train/loss|^val"),
    "run": ("light", "/run?run=everything&vs=study0"),
    "media": ("light", "/run?run=everything&tab=media"),
    "code": ("dark", "/run?run=everything&tab=code"),
    "compare": ("light", f"/compare?{STUDY}&run=study3&run=study4"),
}


def main() -> None:
    """Record the runs, look at them, keep what is seen."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "tracelet_runs"
        demo.study(runs)
        demo.everything(runs)
        with serving(runs) as address:
            browser = Browser(address, Path(place))
            try:
                browser.size(1280, 800)
                for name, (theme, path) in PICTURES.items():
                    browser.run("localStorage.setItem('tracelet-theme', arguments[0])", theme)
                    browser.open(path)
                    browser.wait(lambda: browser.run("return [...document.images].every(image => image.complete)"))
                    browser.driver.save_screenshot(str(IMAGES / f"ui-{name}.png"))
            finally:
                browser.driver.quit()


if __name__ == "__main__":
    main()
