"""An example of a model's input: shapes and types, and the arrays as a file. Nothing is run for it.

Called on the user's thread. Arrays of torch, JAX and Keras are copied to the host by their own framework's call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

logger = logging.getLogger(__name__)

EXAMPLE_FILE: Final = "input_example.npz"
_MAX_BYTES: Final = 16 << 20


@runtime_checkable
class _Array(Protocol):
    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...


def describe(value: Any) -> Any:
    """Shapes and types of arrays, in the mappings and lists that they stand in: JSON-like."""
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, _Array):
        shape = [size if size is None else int(size) for size in value.shape]
        return {"shape": shape, "dtype": str(value.dtype).removeprefix("torch.")}
    return type(value).__name__


def save_example(value: Any, directory: Path) -> str | None:
    """Keep the arrays of an example; returns the file's name, and None where there is nothing to keep.

    Raises:
        OSError: The disk does not take it.
    """
    import numpy as np

    arrays = dict(_arrays(value, ""))
    if not arrays or any(array.dtype.kind in "OV" for array in arrays.values()):  # Objects would be pickled.
        return None
    if (size_bytes := sum(array.nbytes for array in arrays.values())) > _MAX_BYTES:
        logger.warning(
            "the input example has %d bytes, of %d allowed: only its shapes are kept", size_bytes, _MAX_BYTES
        )
        return None
    np.savez(directory / EXAMPLE_FILE, **arrays)
    return EXAMPLE_FILE


def _arrays(value: Any, name: str) -> list[tuple[str, Any]]:
    import numpy as np

    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _arrays(item, f"{name}/{key}".lstrip("/"))]
    if isinstance(value, list | tuple):
        return [found for key, item in enumerate(value) for found in _arrays(item, f"{name}/{key}".lstrip("/"))]
    if not isinstance(value, _Array):
        return []
    tensor: Any = value
    if type(value).__module__.partition(".")[0] == "torch":
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    array = np.asarray(tensor)
    if array.dtype.kind == "V":  # bfloat16 and its like, which numpy can't write.
        array = array.astype(np.float32)
    return [(name or "input", array)]
