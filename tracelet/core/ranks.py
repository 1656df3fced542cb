"""One run for all processes of a job: torchrun, accelerate, SLURM, MPI, `jax.distributed`, or ranks that you count.

Each process calls `shared_experiment` on its own thread. The first rank starts the run, delivers it and ends it; each
other rank joins with a journal of its own in the same directory, so that no log call ever waits for another process.

How a rank finds the run of rank 0, the first that applies:
1. `run_id=`, or the `resume=` of a checkpoint: all say the same.
2. `torch.distributed` or `jax.distributed` is initialised: rank 0 tells the others. All ranks have to make the call.
3. The launcher names its job in a way that no other job has, and all ranks see: each derives the same id from it.
So two jobs never share a run by accident, and a job that its launcher starts again goes on with its run.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from tracelet.core.arguments import Backends, Resume
from tracelet.core.experiment import Experiment
from tracelet.errors import UsageError
from tracelet.journal.directory import RunDirectory, RunIdentity, run_id_of

if TYPE_CHECKING:
    from tracelet.settings import TraceletSettings

_MESSAGE_BYTES: Final = 8192  # jax broadcasts arrays of one known size.


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands in its job.

    Attributes:
        rank: From 0.
        size: How many processes the job has.
        job: What no other job is called, and this one still is when its launcher starts it again; None: not known.
        is_common: Whether every process of the job sees the same `job`.
    """

    rank: int = 0
    size: int = 1
    job: str | None = None
    is_common: bool = False


def shared_experiment(
    name: str,
    backend: Backends | None = None,
    config: Any = None,
    tags: Mapping[str, str] | Sequence[str] | None = None,
    project: str | None = None,
    run_id: str | None = None,
    resume: Resume | bool | None = None,
    *,
    dir: str | os.PathLike[str] | None = None,
    collectors: Sequence[str] | None = None,
    settings: TraceletSettings | None = None,
    rank: int | None = None,
) -> Experiment:
    """Start the run that all processes of this job share, or join it; outside of a job, start one.

    The arguments are those of `Experiment`. What belongs to the run as a whole comes from the first rank alone.

    Args:
        name: As for `Experiment`.
        backend: The same; used on the first rank, which delivers.
        config: The same; recorded by the first rank.
        tags: The same.
        project: As for `Experiment`.
        run_id: As for `Experiment`; the same one in all processes.
        resume: The same.
        dir: As for `Experiment`; a directory that all processes see.
        collectors: As for `Experiment`; used on the first rank.
        settings: As for `Experiment`.
        rank: This process's rank. None: what the framework or the launcher says.

    Returns:
        The experiment, running.

    Raises:
        UsageError: This is one of several processes, and nothing says which run is theirs; the text says what to do.
        TraceletError: What `Experiment` and its `start()` raise; on the first rank.
    """
    from tracelet.settings import TraceletSettings

    group = _initialised_group()
    place = place_in_job(os.environ) if group is None else group.place
    if rank is not None:
        place = replace(place, rank=rank, size=max(place.size, rank + 1))
    chosen = settings or TraceletSettings.load()
    if run_id is None and not isinstance(resume, Mapping):
        if place.job is not None and (place.is_common or group is not None):
            run_id = _id_of(place.job, chosen.project if project is None else project, name)
        elif group is None and place.size > 1:
            raise UsageError(
                f"this is rank {place.rank} of {place.size} processes, and nothing tells it which run is theirs. Call "
                "shared_experiment() after torch.distributed.init_process_group() or jax.distributed.initialize(), or "
                "give all of them one run_id="
            )

    def made() -> Experiment:
        return Experiment(
            name, backend, config, tags, project, run_id, resume, dir=dir, collectors=collectors, settings=chosen,
            rank=0 if place.size > 1 else None,
        )  # fmt: skip

    if place.rank == 0:
        return made().start() if group is None else _started_for_all(made, group)
    run = made()._run if group is None else _told(group)  # noqa: SLF001  It is one of us.
    return Experiment._attach(run, chosen, place.rank)  # noqa: SLF001  As above.


def place_in_job(environment: Mapping[str, str]) -> Place:
    """Where this process stands by what its launcher has put into the environment."""
    for names in _LAUNCHERS:
        rank, size = environment.get(names.rank, ""), environment.get(names.size, "")
        if rank.isdecimal() and size.isdecimal():
            job = names.job(environment)
            is_common = names.local_size is None or environment.get(names.local_size) == size
            return Place(int(rank), int(size), job, is_common and job is not None)
    return Place()


def _torchrun_job(environment: Mapping[str, str]) -> str | None:
    # The agent of a host makes a new directory for its workers, and keeps it when it starts them again. The id that
    # users give (`--rdzv-id`) and the port are the same for one job after the other.
    agent, found, _ = environment.get("TORCHELASTIC_ERROR_FILE", "").rpartition("/attempt_")
    return agent if found else None


def _slurm_job(environment: Mapping[str, str]) -> str | None:
    # A step of one task is often a shell, in which one program is started after the other; none is the job's only one.
    if "SLURM_STEP_ID" not in environment or environment.get("SLURM_NTASKS") == "1":
        return None
    return "/".join(environment.get(f"SLURM_{part}", "") for part in ("CLUSTER_NAME", "JOB_ID", "STEP_ID"))


@final
@dataclass(frozen=True, slots=True)
class _Launcher:
    """Variables of one launcher; `local_size` where a job's name is that of one host alone."""

    rank: str
    size: str
    job: Callable[[Mapping[str, str]], str | None]
    local_size: str | None = None


_LAUNCHERS: Final = (
    _Launcher("RANK", "WORLD_SIZE", _torchrun_job, "LOCAL_WORLD_SIZE"),  # torchrun, accelerate, Ray Train.
    _Launcher("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", lambda environment: environment.get("PMIX_NAMESPACE")),
    _Launcher("PMI_RANK", "PMI_SIZE", lambda _: None),
    _Launcher("SLURM_PROCID", "SLURM_NTASKS", _slurm_job),
    _Launcher("LOCAL_RANK", "WORLD_SIZE", lambda _: None),  # Lightning's own.
)


@functools.cache
def _calls(_key: str) -> Callable[[], int]:
    """Counts the runs of one name that this process has shared: each of them is another run."""
    return itertools.count().__next__


def _id_of(job: str, project: str, name: str) -> str:
    key = json.dumps([job, project, name])
    return run_id_of(hashlib.sha256(f"{key}{_calls(key)()}".encode()).digest())


# -- rank 0 tells the others -------------------------------------------------------------------------------------------


class _Group(Protocol):
    """Processes that can talk to each other."""

    place: Place

    def from_first(self, text: str) -> str:
        """What rank 0 has, on all ranks. Waits for all of them."""


def _started_for_all(made: Callable[[], Experiment], group: _Group) -> Experiment:
    text = ""
    try:
        experiment = made().start()
        run = experiment._run  # noqa: SLF001  It is one of us.
        text = json.dumps({"path": os.fspath(run.path), "identity": asdict(run.identity)})
    finally:  # Also where it can't start: the others wait.
        group.from_first(text)
    return experiment


def _told(group: _Group) -> RunDirectory:
    text = group.from_first("")
    if not text:
        raise UsageError(f"rank {group.place.rank} has no run: rank 0 could not start it, and says why")
    told = json.loads(text)
    # With the identity: a network file system may show the run's file some seconds later here.
    return RunDirectory(Path(told["path"]), RunIdentity(**told["identity"]))


def _initialised_group() -> _Group | None:
    """The processes that the user's framework has brought together; nothing is imported for it."""
    torch, jax = sys.modules.get("torch.distributed"), sys.modules.get("jax")
    if torch is not None and torch.is_available() and torch.is_initialized() and torch.get_world_size() > 1:
        return _TorchGroup(torch)
    if jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1:
        return _JaxGroup(jax)
    return None


@final
class _TorchGroup:
    def __init__(self, distributed: Any) -> None:
        self._distributed = distributed
        job = place_in_job(os.environ).job
        self.place = Place(distributed.get_rank(), distributed.get_world_size(), job)

    def from_first(self, text: str) -> str:
        texts = [text]
        self._distributed.broadcast_object_list(texts, src=0)
        return texts[0]


@final
class _JaxGroup:
    def __init__(self, jax: Any) -> None:
        self.place = Place(jax.process_index(), jax.process_count(), place_in_job(os.environ).job)

    def from_first(self, text: str) -> str:
        import numpy as np
        from jax.experimental import multihost_utils

        data = text.encode()
        if len(data) > _MESSAGE_BYTES:
            raise UsageError(f"the run's path and name are too long for the other ranks: {len(data)} bytes")
        message = np.frombuffer(data.ljust(_MESSAGE_BYTES), np.uint8)
        told = multihost_utils.broadcast_one_to_all(message, is_source=self.place.rank == 0)
        return np.asarray(told).astype(np.uint8).tobytes().decode().rstrip()
