"""SIGKILL at random instants of keeping and hashing: each artifact whole and once, and the user's files untouched."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.artifacts.killing import content
from tracelet import Artifact, TraceletSettings, load_run
from tracelet.core.sync import sync_run
from tracelet.journal import manifests

ROOT = Path(__file__).parent.parent.parent
KILLS = 25


def bytes_of(artifact: Artifact) -> dict[str, bytes]:
    assert artifact.path is not None
    return {name: (artifact.path / name).read_bytes() for name in artifact.files}


def test_each_artifact_of_a_killed_process_is_whole_and_there_once():
    done = subprocess.run(
        [sys.executable, "-m", "tests.artifacts.killing", str(KILLS)],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    returned = json.loads(done.stdout)
    assert len(returned) >= KILLS // 2  # Or they were killed before they came to anything.
    before = {path: path.stat().st_mtime_ns for path in Path("checkpoints").rglob("*") if path.is_file()}

    sync_run(load_run("killed").path, (), TraceletSettings())  # Finishes what the kills have left.

    run = load_run("killed")
    found = run.artifacts()
    numbers = [artifact.metadata["number"] for artifact in found]
    assert set(returned) <= set(numbers)
    assert len(set(numbers)) == len(numbers) == len({artifact.version for artifact in found})
    assert ("best", "latest") == run.artifact("checkpoint").aliases
    for number, artifact in zip(numbers, found, strict=True):
        expected = content(number)
        assert expected == bytes_of(artifact)
        digests = {name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in expected.items()}
        assert (manifests.tree_digest(digests), ()) == (artifact.digest, artifact.changed)
    assert 1 == len({(artifact.path / "common.bin").stat().st_ino for artifact in found if artifact.path})
    for number in returned:
        assert content(number) == {
            name: Path("checkpoints", str(number), name).read_bytes() for name in content(number)
        }
    assert before == {path: path.stat().st_mtime_ns for path in before}
