"""The output models of a task on a ClearML server, over its REST API. For one thread.

ClearML's own `OutputModel` needs its `Task`, and uploads on threads of its own; what it sends is sent here.

Guarantee: one model a version, made when its file is there. It is found by the task and its name, so that a record
that comes twice makes no second one, uploads nothing, and changes nothing that somebody wrote on ClearML's pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, final

from tracelet.backends._clearml.artifacts import Artifact, Model

PACKAGE: Final = "package"
"""The system tag that lets ClearML's `Model.get_local_copy` unpack a directory."""


@final
class OutputModels:
    """See the module docstring."""

    def __init__(self, call: Callable[..., dict[str, Any]], task_id: str, project_id: str) -> None:
        """`call` sends a request, given its endpoint and fields."""
        self._call = call
        self._task_id = task_id
        self._project_id = project_id

    def add(self, artifact: Artifact, model: Model, store: Callable[[], str]) -> None:
        """Find the model or make it, and enter it in the task. `store` keeps the file, and tells its URL."""
        known = [one["id"] for one in self._find(re.escape(artifact.key)) if one["name"] == artifact.key]
        model_id = known[0] if known else self._create(artifact, model, store())
        self._call("tasks.add_or_update_model", name=artifact.key, type="output", model=model_id)

    def _create(self, artifact: Artifact, model: Model, uri: str) -> str:
        for tag in model.tags:
            self._untag(model.family, tag)
        comment, metadata = model.described()
        fields = {
            "name": artifact.key,
            "uri": uri,
            "project": self._project_id,
            "comment": comment,
            "tags": model.tags,
            "system_tags": [PACKAGE] if artifact.is_directory else [],
            "metadata": metadata,
        }
        return str(
            self._call("models.create", **fields, **({"framework": model.framework} if model.framework else {}))["id"]
        )

    def _untag(self, family: str, tag: str) -> None:
        """An alias is at one version at a time."""
        for one in self._find(rf"{re.escape(family)}( \(Tracelet\))?(: v\d+)?", tags=[tag]):
            self._call("models.edit", model=one["id"], tags=[other for other in one["tags"] if other != tag])

    def _find(self, pattern: str, **query: Any) -> list[dict[str, Any]]:
        wanted = {"name": f"^{pattern}$", "only_fields": ["id", "name", "tags"], "search_hidden": True}
        return list(self._call("models.get_all", **{"task": [self._task_id], **wanted, **query})["models"])
