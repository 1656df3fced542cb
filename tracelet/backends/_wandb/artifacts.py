"""Artifacts as the SDK of Weights & Biases wants them. In the SDK's process, on its main thread."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from tracelet.backends._artifact import ArtifactFacts
from tracelet.backends._wandb import mapping
from tracelet.backends._wandb.media import existing
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import RejectedError
from tracelet.utils.escaping import NameEscaping

_ALIASES: Final = NameEscaping(r"A-Za-z0-9_. +=-", 128)
_VERSION: Final = re.compile(r"v\d+")


def artifact(wandb: Any, record: MetricData) -> Any:
    """A `wandb.Artifact`, which is not yet logged.

    Raises:
        RejectedError: The file is gone, or the SDK refuses it.
    """
    facts = ArtifactFacts.of(record)
    path = None if facts.path is None else existing(os.fspath(facts.path))
    try:
        details = _metadata(record, facts.hashed())
        made = wandb.Artifact(mapping.key_of(record), mapping.artifact_type(record), metadata=details)
        if path is None:
            made.add_reference(facts.reference, checksum=False)  # Nothing is fetched.
        else:
            # The files of a run don't change: so the SDK need not copy them into the user's home first.
            add = made.add_dir if os.path.isdir(path) else made.add_file
            add(path, policy="immutable", skip_cache=True)
    except Exception as error:
        raise RejectedError(f"W&B's SDK can't take the artifact {record.name!r} ({record.value}): {error}") from error
    return made


def aliases(metric: MetricData) -> list[str]:
    """`latest`, the step, our version, and those that it was logged with, as far as W&B takes them."""
    facts = ArtifactFacts.of(metric)
    # `v3` is W&B's own word: its versions count what differs, over all runs of a project.
    given = [f"tracelet-{facts.version}" if facts.version else "", *facts.aliases]
    step = "" if metric.iteration is None else f"step-{metric.iteration}"
    found = [_ALIASES.escape(alias) for alias in ("latest", step, *given) if alias]
    return [f"tracelet-{alias}" if _VERSION.fullmatch(alias) else alias for alias in dict.fromkeys(found)]


def _metadata(metric: MetricData, facts: ArtifactFacts) -> dict[str, Any]:
    """What was said of an artifact, and under `tracelet/…` what is ours."""
    ours = {"name": metric.name, "step": metric.iteration, "version": facts.version, "digest": facts.digest}
    others = dict(facts.metadata) if metric.type is MetricType.ARTIFACT else dict(metric.metadata or {})
    return {
        **mapping.config_value(others),
        **{f"tracelet/{key}": value for key, value in ours.items() if value is not None},
    }
