"""How the tests start jobs of several real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **more}


def torchrun(
    *script: str | Path, ranks: int = 2, restarts: int = 0, succeeds: bool = True, more: Mapping[str, str] | None = None
) -> None:
    """Run a script of this directory under torchrun, with a port of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--max-restarts",
               str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    done = subprocess.run(
        [*command, HERE / script[0], *script[1:]], env=environment(**(more or {})), check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr


def together(script: str, *arguments: str, ranks: int = 2) -> None:
    """Run a script of this directory as often at once; the rank comes before the other arguments."""
    started = [
        subprocess.Popen([sys.executable, HERE / script, str(rank), *arguments], env=environment(),
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(ranks)
    ]  # fmt: skip
    printed = [process.communicate()[0] for process in started]
    assert [0] * ranks == [process.returncode for process in started], "\n".join(printed)
