"""What users may give for a backend, and for `resume`. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tracelet.core.plugins import PluginBase
from tracelet.errors import UsageError

Resume = Literal["allow", "must", "never"] | Mapping[str, Any]
Backends = str | PluginBase | Iterable[str | PluginBase]


def listed_backends(backend: Backends) -> tuple[str | PluginBase, ...]:
    """Names and instances, each once.

    Raises:
        UsageError: There is something else among them.
    """
    if isinstance(backend, str):
        return tuple(name.strip() for name in backend.split(",") if name.strip())
    listed = (backend,) if isinstance(backend, PluginBase) or not isinstance(backend, Iterable) else tuple(backend)
    for one in listed:
        if not isinstance(one, (str, PluginBase)):
            raise UsageError(f"a backend is a name or an instance of a plug-in, not {type(one).__name__}: {one!r:.200}")
    return tuple({one if isinstance(one, str) else id(one): one for one in listed}.values())


def resume_mode(resume: Resume | bool | None, run_id: str | None) -> Resume:
    """How to resume: by a word, or with what `resume_state()` gave.

    Raises:
        UsageError: `resume` is no way to, or demands a run without naming it.
    """
    if isinstance(resume, Mapping):
        if not all(isinstance(resume.get(key), str) for key in ("run_id", "project", "dir")):
            raise UsageError(f"resume takes what resume_state() gave, not a mapping with {sorted(map(str, resume))}")
        return resume
    modes: dict[Any, Resume] = {None: "allow", True: "must", False: "never"}
    mode = modes.get(resume, resume)
    if mode not in ("allow", "must", "never"):
        raise UsageError(f"resume is 'allow', 'must', 'never' or what resume_state() gave, not {resume!r}")
    if mode == "must" and run_id is None:
        raise UsageError('resume="must" needs the run_id of the run to go on with')
    return mode
