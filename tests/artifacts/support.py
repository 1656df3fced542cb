"""What the tests of artifacts share."""

from __future__ import annotations

import hashlib

from tracelet import Artifact, Experiment

LARGE = b"\x01" * (1 << 20) + b"\x02"
"""One byte more than is copied."""


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def finished(experiment: Experiment, name: str) -> Artifact:
    """An artifact with its digest."""
    assert experiment.flush(60)
    return experiment.get_artifact(name)
