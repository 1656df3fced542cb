"""Several processes of one job record one run, each with a rank: which is the main line, and what backends get.

The first rank, 0, is the run's main line, and so is a writer without a rank. What another rank records under the same
name is a series of its own; the two are never mixed. Backends get the main line, and of another rank

- what its integration has named `rank/1/loss` itself, since nothing else has that name;
- with the setting `deliver_ranks`, all of its records but tags, renamed in that way. The writer's first line says so:
  live delivery, `tracelet sync` and `tracelet verify` go by it, and agree.

Pure functions, called on a reader's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tracelet.core.records import MetricData, MetricType


def rank_of(facts: Mapping[str, Any]) -> int:
    """The rank of a writer by the first line of its log; 0 where it has none."""
    rank = facts.get("rank")
    return rank if isinstance(rank, int) and rank > 0 else 0


def prefix_of(rank: int) -> str:
    """What the names of another rank's series begin with where all ranks stand side by side."""
    return f"rank/{rank}/" if rank else ""


def as_delivered(record: MetricData, facts: Mapping[str, Any]) -> MetricData | None:
    """What the backends get of a record; None where they get nothing.

    Args:
        record: The record.
        facts: The first line of its writer's log.
    """
    prefix = prefix_of(rank_of(facts))
    if record.name.startswith(prefix):
        return record
    if not facts.get("delivers") or record.type is MetricType.CUSTOM:
        return None
    return replace(record, name=prefix + record.name)
