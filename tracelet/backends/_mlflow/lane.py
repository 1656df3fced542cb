"""Brings a run's artifacts to MLflow beside all else. On the thread of the backend's artifacts only.

It has connections of its own, and knows of the run what does not change. Guarantee: when `store` returns, the files
are in MLflow, and the tag that describes the artifact after them. An artifact of the type `model` is a logged model of
MLflow's, where that has such a thing; all others are among the run's artifacts.
"""

from __future__ import annotations

import json
from typing import final

from tracelet.backends._artifact import ArtifactFacts
from tracelet.backends._base import RunFacts
from tracelet.backends._mlflow.api import MODEL_TAG, RefusalError, RemoteRun, connect
from tracelet.backends._mlflow.artifacts import Artifacts
from tracelet.backends._mlflow.files import artifact
from tracelet.backends._mlflow.mapped import Upload
from tracelet.backends._mlflow.names import MAX_TAG_CHARS, MODELS, cut, digest_of, path_of, storable
from tracelet.backends._mlflow.run import get_active_run
from tracelet.core.records import MetricData


@final
class ArtifactStore:
    """See the module docstring."""

    def __init__(self, run: RemoteRun, facts: RunFacts, uri: str, timeout_s: float) -> None:
        """Nothing is connected to.

        Args:
            run: The run.
            facts: What our run is.
            uri: MLflow's address.
            timeout_s: How long a server may be silent.
        """
        self._run = run
        self._facts = facts
        self._uri = uri
        self._timeout_s = timeout_s
        self._models: bool | None = None  # Whether MLflow has logged models; None: it was not asked.
        self._api = connect(uri, timeout_s)
        self._artifacts = Artifacts(run.artifact_uri, uri, timeout_s)

    def store(self, record: MetricData) -> None:
        """Store one artifact.

        Raises:
            RejectedError: The file is gone, or there is no place for it.
            OSError, RetryableError, PermanentError: As everywhere.
        """
        facts, found = ArtifactFacts.of(record), artifact(record)
        try:
            if facts.type == "model" and facts.path is not None and facts.version is not None and self._has_models():
                self._store_model(facts)
            else:
                for upload in found.uploads:
                    self._artifacts.store(upload)
            self._api.log_batch(self._run.run_id, (), {}, {**found.marks, **found.tags})
        except RefusalError:
            get_active_run(self._api, self._run.run_id, self._facts.state_dir)  # Of a run that was deleted it says so.
            raise

    def _has_models(self) -> bool:
        if self._models is None:
            self._models = self._api.has_models()
        return self._models

    def _store_model(self, facts: ArtifactFacts) -> None:
        """Store a logged model of MLflow's: made, filled, and only then shown as ready. One that is there is filled."""
        assert facts.path is not None
        experiment_id = self._run.experiment_id
        identity = digest_of(f"{self._facts.run_uuid}\n{facts.name}\n{facts.version}")
        model = self._api.find_model(experiment_id, identity)
        if model is None:
            described = cut(storable(json.dumps(facts.described(), default=str)), MAX_TAG_CHARS)
            tags = {MODEL_TAG: identity, "tracelet.artifact": described}
            model = self._api.create_model(experiment_id, self._run.run_id, MODELS.escape(facts.name), tags)
        inside = "" if facts.path.is_dir() else path_of(facts.path.name)
        Artifacts(model.artifact_uri, self._uri, self._timeout_s).store(Upload(inside, facts.path, is_final=True))
        self._api.finish_model(model.model_id)
