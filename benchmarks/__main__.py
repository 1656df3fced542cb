"""Runs the benchmarks, one after the other, in this process: see `python -m benchmarks --help`."""

from __future__ import annotations

import enum
import importlib
import os
import time
from typing import Annotated, final

import typer
from rich.console import Console


@final
class Benchmark(enum.StrEnum):
    """The modules of this package that measure something, in the order in which they run."""

    IMPORTING = "importing"
    LOG_METRIC = "log_metric"
    LATENCY = "latency"
    DISK = "disk"
    READING = "reading"
    IMPORTING_RUNS = "importing_runs"
    MANY_RUNS = "many_runs"
    MANY_PROCESSES = "many_processes"
    MEMORY = "memory"
    ARTIFACTS = "artifacts"
    LIGHTNING = "lightning_overhead"
    HUGGING_FACE = "hf_overhead"
    KERAS = "keras_overhead"
    JAX = "jax_overhead"
    TORCH = "torch_overhead"
    MLFLOW = "mlflow_delivery"
    WANDB = "wandb_delivery"
    TRACKERS = "tracker_overhead"
    HOSTING = "hosting"
    COLLECTORS = "collectors"
    UI = "ui"
    BROWSER = "ui_browser"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    names: Annotated[
        list[Benchmark] | None, typer.Argument(metavar="[NAME]…", help=f"Any of: {', '.join(Benchmark)}. None: all.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.0, help="Multiplies the sizes; the targets hold at 1.")] = 1.0,
) -> None:
    """Run benchmarks and print their tables."""
    console = Console()
    os.environ.setdefault("TRACELET_COLLECTORS", "")  # What they cost is a question of its own: `collectors`.
    for name in names or Benchmark:
        began_s = time.perf_counter()
        importlib.import_module(f"benchmarks.{name}").main(scale)
        console.print(f"{name}: {time.perf_counter() - began_s:.0f} s\n", style="dim")


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
