"""Where the program runs: Python, platform, command line, variables, and the job of a cluster that it is a part of."""

from __future__ import annotations

import fnmatch
import os
import platform
import shlex
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tracelet.utils.redaction import Redactor, redacted

_VARIABLES: Final = (
    "CUDA_*", "NVIDIA_VISIBLE_DEVICES", "NCCL_*", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_*", "OMP_*",
    "MKL_*", "OPENBLAS_NUM_THREADS", "TORCH_*", "PYTORCH_*", "XLA_*", "JAX_*", "KERAS_BACKEND", "TRITON_*",
    "TF_CPP_*", "TF_CUDNN_*", "TF_DETERMINISTIC_OPS", "TF_ENABLE_*", "TF_FORCE_*", "TF_GPU_*", "TF_NUM_*", "TF_XLA_*",
    "ACCELERATE_*", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM", "PYTHONHASHSEED",
    "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_*", "CONDA_DEFAULT_ENV", "VIRTUAL_ENV", "TZ", "LANG",
)  # fmt: skip
"""What changes how a training computes. No other variable is ever recorded, unless the user names it."""

_JOBS: Final[Mapping[str, Mapping[str, str]]] = {
    "slurm": {
        "job_id": "SLURM_JOB_ID",
        "job_name": "SLURM_JOB_NAME",
        "array_job_id": "SLURM_ARRAY_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
        "step_id": "SLURM_STEP_ID",
        "nodes": "SLURM_JOB_NODELIST",
        "node_count": "SLURM_JOB_NUM_NODES",
        "node": "SLURMD_NODENAME",
        "tasks": "SLURM_NTASKS",
        "rank": "SLURM_PROCID",
        "local_rank": "SLURM_LOCALID",
        "cpus_per_task": "SLURM_CPUS_PER_TASK",
        "gpus": "SLURM_JOB_GPUS",
        "memory_per_node_mib": "SLURM_MEM_PER_NODE",
        "partition": "SLURM_JOB_PARTITION",
        "cluster": "SLURM_CLUSTER_NAME",
        "restarts": "SLURM_RESTART_COUNT",
        "submit_directory": "SLURM_SUBMIT_DIR",
    },
    "torchrun": {
        "run_id": "TORCHELASTIC_RUN_ID",
        "restarts": "TORCHELASTIC_RESTART_COUNT",
        "rank": "RANK",
        "local_rank": "LOCAL_RANK",
        "world_size": "WORLD_SIZE",
        "local_world_size": "LOCAL_WORLD_SIZE",
        "node_rank": "GROUP_RANK",
        "master": "MASTER_ADDR",
    },
    "kubernetes": {
        "pod": "HOSTNAME",
        "namespace": "POD_NAMESPACE",
        "node": "NODE_NAME",
        "job_completion_index": "JOB_COMPLETION_INDEX",
    },
    "ray": {"job_id": "RAY_JOB_ID", "node_id": "RAY_NODE_ID"},
}
"""Where each scheduler tells a process who it is."""

_SIGNS: Final = {
    "slurm": "SLURM_JOB_ID",
    "torchrun": "WORLD_SIZE",
    "kubernetes": "KUBERNETES_SERVICE_HOST",
    "ray": "RAY_JOB_ID",
}
"""The variable without which a process is none of the scheduler's."""

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def python_facts() -> Iterator[tuple[str, Any]]:
    """The interpreter."""
    yield "python/version", platform.python_version()
    yield "python/implementation", platform.python_implementation()
    yield "python/executable", sys.executable
    yield "python/prefix", sys.prefix


def platform_facts() -> Iterator[tuple[str, Any]]:
    """The operating system and the machine."""
    yield "platform/system", platform.system()
    yield "platform/release", platform.release()
    yield "platform/machine", platform.machine()
    yield "platform/hostname", socket.gethostname()
    libc, version = platform.libc_ver()
    yield "platform/libc", f"{libc} {version}" if libc else None
    try:
        yield "platform/distribution", platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:  # A system without that file.
        return


def command_facts(program: str | None, redactor: Redactor) -> Iterator[tuple[str, Any]]:
    """The command line, the script, the working directory."""
    yield "command", shlex.join(redactor.arguments(sys.orig_argv))
    yield "program", program
    yield "working_directory", os.getcwd()


def variable_facts(patterns: Iterable[str], environment: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The variables that are known not to be secret, and those that the user names; without credentials."""
    wanted = (*_VARIABLES, *patterns)
    chosen = {
        name: value
        for name, value in environment.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    }
    yield from redacted(dict(sorted(chosen.items())), "variables")


def job_facts(environment: Mapping[str, str], namespace_file: Path = _NAMESPACE_FILE) -> Iterator[tuple[str, Any]]:
    """Who this process is in the cluster, as each scheduler says."""
    for scheduler, variables in _JOBS.items():
        if _SIGNS[scheduler] not in environment:
            continue
        found = {name: environment[variable] for name, variable in variables.items() if variable in environment}
        if scheduler == "kubernetes" and "namespace" not in found and namespace_file.is_file():
            found["namespace"] = namespace_file.read_text(encoding="utf-8").strip()
        yield from redacted(found, scheduler)
