"""Train a small network, then look at the run as the command line shows it. `make quickstart` runs this."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

EPOCHS = 8


def main() -> None:
    """Train, show, plot, and say what to try next."""
    print(f"Training a small network on handwritten digits, {EPOCHS} epochs …", flush=True)
    began_s = time.perf_counter()
    from lightning_digits import train

    # Lightning's tips are good, but not what this is about. It sets its own level as it is imported: so not before.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    loaded_s = time.perf_counter()
    logger = train(learning_rate=1e-3, epochs=EPOCHS)
    run_id = logger.version
    print(f"PyTorch loaded in {loaded_s - began_s:.0f} s, trained in {time.perf_counter() - loaded_s:.0f} s.")

    tracelet("show", run_id)
    tracelet("plot", run_id, "train/loss", "val/loss")
    tracelet("plot", run_id, "train/accuracy", "val/accuracy")

    python = shown(Path(sys.executable))
    script = shown(Path(__file__).with_name("lightning_digits.py"))
    print("\nWhat to type next: train once more with another learning rate, compare the two, and make a picture.\n")
    print(f"  {python} {script} --learning-rate 0.01")
    print(f"  {command()} compare {run_id} latest")
    print(f"  {command()} plot latest val/accuracy --with {run_id} --output accuracy.svg")


def tracelet(*arguments: str) -> None:
    """Run a command of Tracelet's, after showing it as one would type it."""
    print(f"\n$ {command()} {' '.join(arguments)}\n", flush=True)
    subprocess.run([program(), *arguments], check=True)


def program() -> Path:
    """The `tracelet` that was installed with this Python."""
    return Path(sys.executable).with_name("tracelet")


def command() -> str:
    """How to type it in this shell."""
    found = shutil.which("tracelet")
    return "tracelet" if found and Path(found).samefile(program()) else shown(program())


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


if __name__ == "__main__":
    main()
