"""Runs to look at: a small study, a run that failed, one that was killed, one with everything in it, a hostile one."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from tracelet import Experiment
from tracelet.settings import TraceletSettings

HOSTILE = "<img src=x onerror=alert(1)>"
"""In names, parameters, tags, texts, tables. `tests/ui/test_browser.py` asserts that nothing of it runs."""

SCRIPT_FILE = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(2)'><script>alert(3)</script></svg>"
_PATCH = """diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -10,7 +10,8 @@ def main():
     model = Classifier(width=64)
-    optimizer = SGD(lr=0.1)
+    optimizer = Adam(lr=0.003)
+    scheduler = Cosine(optimizer)
     for epoch in range(20):
         train(model)
"""


def experiment(directory: Path, name: str, **arguments: object) -> Experiment:
    """One that records here and nowhere else."""
    settings = TraceletSettings(dir=directory, show_progress=False)
    return Experiment(name, [], collectors=(), settings=settings, **arguments)  # type: ignore[arg-type]  # of a test


def study(directory: Path, runs: int = 6, steps: int = 400) -> None:
    """Finished runs with other learning rates and widths; the last one failed."""
    chance = random.Random(7)
    directory.mkdir(parents=True, exist_ok=True)
    for index in range(runs):
        rate, width = [0.001, 0.003, 0.01][index % 3], [64, 128][index // 3 % 2]
        run = experiment(
            directory, f"cnn-{width}-lr{rate}", run_id=f"study{index}", project="digits", tags={"team": "vision"}
        )
        run.start()
        run.log_params({"lr": rate, "width": width, "optimizer": {"name": "adam"}, "seed": index})
        speed = rate * 4 * (1 + width / 256)
        for step in range(steps):
            loss = 2.3 * math.exp(-speed * step) + 0.08 + chance.gauss(0, 0.05) * math.exp(-speed * step / 3)
            run.log_metrics({"train/loss": loss, "train/lr": rate * (1 + math.cos(step / steps * math.pi)) / 2}, step)
            if step % 20 == 19:
                run.log_metrics(
                    {"val/loss": loss * 1.1 + 0.02, "val/accuracy": 1 - 0.9 * math.exp(-speed * step)}, step
                )
                run.log_metric("epoch", step // 20, step)
        run.stop("failed" if index == runs - 1 else "finished")


def everything(directory: Path) -> None:
    """A run with every kind of record."""
    run = experiment(directory, "everything", run_id="everything", project="digits", tags={"stage": "demo"})
    run.start()
    run.set_description("A small classifier with one record of each kind.")
    run.log_params({"lr": 0.003, "width": 64, "env/python": "3.11.9", "env/git/branch": "main", "env/cpu/count": 8})
    noise = np.random.default_rng(3)
    for step in range(300):
        value = math.nan if step in (120, 121) else math.inf if step == 200 else math.exp(-step / 80)
        run.log_metric("train/loss", value, step)
        if step % 30 == 0:
            picture = np.zeros((64, 64, 3), np.uint8)
            picture[8 : 8 + step // 6, 8:56] = (80, 110, 220)
            run.log_image("samples", picture, step)
            run.log_histogram("weights", noise.normal(0, 1 + step / 200, 1000), step)
    run.log_table("per class", columns=["class", "precision"], rows=[["cat", 0.91], ["dog", 0.87]])
    run.log_text("notes", "The loss is NaN at step 120: a batch without labels.")
    run.log_text("console/stdout", "".join(f"epoch {epoch}: loss {math.exp(-epoch / 3):.4f}\n" for epoch in range(30)))
    tone = np.sin(np.linspace(0, 880 * math.tau, 8000)).astype(np.float32)
    run.log_audio("tone", tone, sample_rate_hz=8000)
    patch = directory / "diff.patch"
    patch.write_text(_PATCH)
    run.log_artifact(patch, "git/diff.patch", "code")
    run.stop()


def hostile(directory: Path) -> None:
    """Scripts wherever a text can be."""
    run = experiment(directory, HOSTILE, run_id="hostile", project="</script><script>alert(4)</script>")
    run.start()
    run.set_description(HOSTILE)
    run.set_tags({HOSTILE: HOSTILE})
    run.log_params({HOSTILE: HOSTILE, "link": "javascript:alert(5)", "formula": '=HYPERLINK("http://x")'})
    for step in range(20):
        run.log_metric(HOSTILE, step, step)
        run.log_metric("<b>bold</b><a href='javascript:alert(8)'>x</a>", step, step)
    run.log_table(HOSTILE, columns=[HOSTILE], rows=[[HOSTILE]])
    run.log_text(HOSTILE, f"# {HOSTILE}\n[x](javascript:alert(6))")
    run.log_text("console/stdout", f"{HOSTILE}\n\x1b[31mred\x1b[0m\n")
    for suffix in ("svg", "html"):
        file = directory / f"evil.{suffix}"
        file.write_text(SCRIPT_FILE)
        run.log_artifact(file, f"evil.{suffix}")
    run.stop()


def killed(directory: Path) -> None:
    """A run whose process was killed."""
    code = (
        "import os, signal, pathlib; from tests.ui.demo import experiment\n"
        f"run = experiment(pathlib.Path({str(directory)!r}), 'killed', run_id='killed', project='digits')\n"
        "run.start()\n"
        "for step in range(50): run.log_metric('train/loss', 1 / (1 + step), step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=False, cwd=root, env={"PYTHONPATH": str(root)}, timeout=60)


def unreadable(directory: Path) -> None:
    """A run whose identity is damaged, and one with a damaged segment."""
    (directory / "digits" / "broken").mkdir(parents=True)
    (directory / "digits" / "broken" / "run.json").write_text("{")
    run = experiment(directory, "damaged", run_id="damaged", project="digits")
    run.start()
    for step in range(100):
        run.log_metric("train/loss", 1 / (1 + step), step)
    run.stop()
    segment = next((directory / "digits" / "damaged").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[4096 + 40 * 32 + 3] ^= 0xFF  # In the header's page, then 40 records further.
    segment.write_bytes(data)


def all_runs(directory: Path) -> Path:
    """All of them; gives the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for make in (unreadable, killed, hostile, study, everything):
        make(directory)
    return directory


if __name__ == "__main__":
    all_runs(Path(sys.argv[1]))
