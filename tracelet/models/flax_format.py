"""Flax: a TrainState, an NNX module or a tree of parameters, as msgpack. On the user's thread; one copy to the host.

Flax's msgpack holds arrays of all types with their names in one file, and loads in NumPy alone; Orbax writes a
directory for the layout of one set of devices, which a model to keep should not depend on.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import UsageError
from tracelet.models.format import SavedModel, call, import_line

_WEIGHTS: Final = "model.msgpack"
_READ: Final = f"""\
with open("{_WEIGHTS}", "rb") as file:
    saved = serialization.msgpack_restore(file.read())
"""


@final
class FlaxFormat:
    """See the module docstring."""

    framework: Final = "flax"
    packages: Final = ("flax", "jax", "optax")

    def save(self, model: Any, directory: Path, config: Mapping[str, Any], processor: Any) -> SavedModel:
        """As `ModelFormat.save`."""
        import jax
        from flax import linen, nnx, serialization

        if isinstance(model, linen.Module):
            raise UsageError("a linen module holds no weights: give log_model() its parameters, or the TrainState")
        is_nnx = isinstance(model, nnx.Module)
        if is_nnx:
            tree = _with_texts(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
        else:
            tree = serialization.to_state_dict(model)
        tree = jax.device_get(tree)
        (directory / _WEIGHTS).write_bytes(serialization.msgpack_serialize(tree))
        weights = tree["params"] if not is_nnx and isinstance(tree, Mapping) and "params" in tree else tree
        return SavedModel(
            weights=_WEIGHTS,
            code=_nnx_code(type(model), config) if is_nnx else _tree_code(tree),
            parameters=sum(int(getattr(leaf, "size", 1)) for leaf in jax.tree.leaves(weights)),
            config=config,
            details={"is_nnx": is_nnx},
        )

    def load(self, directory: Path, card: Mapping[str, Any], into: Any) -> Any:
        """As `ModelFormat.load`. Without `into` the tree of arrays; else it is filled: a new state, the same module."""
        from flax import nnx, serialization

        saved = serialization.msgpack_restore((directory / _WEIGHTS).read_bytes())
        if into is None:
            return saved
        if not isinstance(into, nnx.Module):
            return serialization.from_state_dict(into, saved)
        state = nnx.state(into, nnx.Not(nnx.RngState))
        nnx.replace_by_pure_dict(state, nnx.restore_int_paths(saved))
        nnx.update(into, state)
        return into


def _with_texts(tree: Any) -> Any:
    """The same with texts as keys: msgpack takes no numbers there, which NNX has for the items of lists."""
    return {str(key): _with_texts(item) for key, item in tree.items()} if isinstance(tree, Mapping) else tree


def _tree_code(tree: Any) -> str:
    code = f"from flax import serialization\n\n{_READ}"
    if isinstance(tree, Mapping) and "params" in tree:
        return (
            f'{code}model = saved["params"]\n'
            "# Or all of it, into a state like the one that was saved: serialization.from_state_dict(state, saved)"
        )
    return f"{code}model = saved\n# Lists and tuples have become mappings: serialization.from_state_dict(tree, saved)"


def _nnx_code(cls: Any, config: Mapping[str, Any]) -> str:
    more = ["rngs=nnx.Rngs(0)"] if "rngs" in inspect.signature(cls.__init__).parameters else []
    return (
        f"from flax import nnx, serialization\n{import_line(cls)}\n\n{_READ}model = {call(cls, config, *more)}\n"
        "state = nnx.state(model, nnx.Not(nnx.RngState))\n"
        "nnx.replace_by_pure_dict(state, nnx.restore_int_paths(saved))\n"
        "nnx.update(model, state)"
    )
