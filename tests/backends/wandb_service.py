"""Stands in for the service of Weights & Biases on the loopback: the real SDK and the real `wandb sync` talk to it."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]
