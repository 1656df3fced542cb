"""What the frameworks that the program has loaded say of themselves: versions, CUDA, cuDNN, ROCm, seeds.

Called on the environment collector's thread. Only looks at modules that are there already, and never imports one: that
is the program's business. So a framework that is loaded later has its say at a later reading.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

_DISTRIBUTIONS: Final = {
    "tracelet": "tracelet", "torch": "torch", "jax": "jax", "jaxlib": "jaxlib",
    "flax": "flax", "optax": "optax", "tensorflow": "tensorflow",
    "keras": "keras", "lightning": "lightning", "pytorch_lightning": "pytorch-lightning",
    "transformers": "transformers", "accelerate": "accelerate", "trl": "trl", "peft": "peft",
    "sentence_transformers": "sentence-transformers", "diffusers": "diffusers", "datasets": "datasets",
    "timm": "timm", "torchvision": "torchvision", "deepspeed": "deepspeed", "bitsandbytes": "bitsandbytes",
    "flash_attn": "flash-attn", "triton": "triton", "vllm": "vllm", "xgboost": "xgboost", "lightgbm": "lightgbm",
    "sklearn": "scikit-learn", "numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "ray": "ray",
}  # fmt: skip


def package_facts(told: Container[str]) -> Iterator[tuple[str, Any]]:
    """The versions of the packages that matter most, and are loaded.

    Args:
        told: Names that need not be told again: to look for a version takes a millisecond.
    """
    for module, distribution in _DISTRIBUTIONS.items():
        name = f"package/{distribution}"
        if module in sys.modules and name not in told:
            yield name, _version(distribution)


def is_loaded(module: str) -> bool:
    """Whether a module is there, and does not import itself at this moment on another thread."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def framework_facts(module: str) -> Iterator[tuple[str, Any]]:
    """What a framework that is loaded, one of `TELLERS`, says of itself."""
    yield from TELLERS[module](sys.modules[module])


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # Installed in some other way.
        return None


def _torch(torch: ModuleType) -> Iterator[tuple[str, Any]]:
    version = torch.version
    yield "torch/cuda", version.cuda
    yield "torch/hip", version.hip
    yield "torch/cudnn", torch.backends.cudnn.version()
    yield "torch/seed", torch.initial_seed()
    yield "torch/deterministic", torch.are_deterministic_algorithms_enabled()
    yield "torch/threads", torch.get_num_threads()


def _jax(jax: ModuleType) -> Iterator[tuple[str, Any]]:
    # `jax.devices()` would start the backend, and take the GPU's memory, before the program wants it.
    yield "jax/enable_x64", jax.config.jax_enable_x64
    yield "jax/default_matmul_precision", jax.config.jax_default_matmul_precision
    yield "jax/prng", jax.config.jax_default_prng_impl


def _tensorflow(tensorflow: ModuleType) -> Iterator[tuple[str, Any]]:
    build: Mapping[str, Any] = tensorflow.sysconfig.get_build_info()
    yield "tensorflow/cuda", build.get("cuda_version")
    yield "tensorflow/cudnn", build.get("cudnn_version")


def _keras(keras: ModuleType) -> Iterator[tuple[str, Any]]:
    yield "keras/backend", keras.config.backend()
    yield "keras/dtype_policy", keras.config.dtype_policy().name


TELLERS: Final[Mapping[str, Callable[[ModuleType], Iterator[tuple[str, Any]]]]] = {
    "torch": _torch,
    "jax": _jax,
    "tensorflow": _tensorflow,
    "keras": _keras,
}
