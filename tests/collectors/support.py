"""What the tests of the collectors share."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tracelet.core.plugins import CollectorPlugin
from tracelet.core.records import MetricData, MetricType


def git(*arguments: str, cwd: Path) -> str:
    """Runs git as somebody who has a name."""
    options = ("user.name=t", "user.email=t@localhost", "protocol.file.allow=always", "init.defaultBranch=main")
    words = [word for option in options for word in ("-c", option)]
    done = subprocess.run(["git", *words, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def running(collector: CollectorPlugin, **config: Any) -> CollectorPlugin:
    collector.initialize({"interval": 1.0, **config})
    collector.start()
    return collector


def parameters(records: list[MetricData]) -> dict[str, Any]:
    return {record.name: record.value for record in records if record.type is MetricType.PARAMETER}


def values(records: list[MetricData]) -> dict[str, float]:
    return {record.name: record.value for record in records if record.type is MetricType.SYSTEM}
