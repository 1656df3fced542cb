"""torch and Lightning: the state dict as safetensors. On the user's thread; one copy from a device to the host.

Weights and buffers only. How the class is made is told by `config`, which of a LightningModule is its hyper-parameters.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.errors import UsageError
from tracelet.models.format import SavedModel, call, import_line, is_json
from tracelet.utils.imports import require

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_WEIGHTS: Final = "model.safetensors"


@final
class TorchFormat:
    """See the module docstring."""

    framework: Final = "torch"
    packages: Final = ("torch", "safetensors", "lightning", "pytorch-lightning")

    def save(self, model: Any, directory: Path, config: Mapping[str, Any], processor: Any) -> SavedModel:
        """As `ModelFormat.save`. A module, or a state dict."""
        import torch

        require("safetensors.torch", "log_model() of a torch model", "models")
        from safetensors.torch import save_file

        module = unwrapped(model) if isinstance(model, torch.nn.Module) else None
        state = dict(model if module is None else module.state_dict())
        tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
        left_out = sorted(state.keys() - tensors.keys())
        if left_out:
            logger.warning("not kept with the model, since they are no tensors: %s", ", ".join(map(str, left_out)))
        kept, shared = _distinct(tensors)
        save_file(kept, directory / _WEIGHTS, metadata={"format": "pt"})
        config = config or ({} if module is None else _hyper_parameters(module))
        return SavedModel(
            weights=_WEIGHTS,
            code=_code(module, config, shared, strict=not left_out),
            parameters=sum(
                value.numel() for value in ((kept if module is None else dict(module.named_parameters())).values())
            ),
            config=config,
            details={"shared": shared, "left_out": left_out},
        )

    def load(self, directory: Path, card: Mapping[str, Any], into: Any) -> Any:
        """As `ModelFormat.load`. Without `into` the state dict."""
        from safetensors.torch import load_file

        weights = load_file(directory / _WEIGHTS)
        weights |= {name: weights[kept] for name, kept in card["details"]["shared"].items() if kept in weights}
        if into is None:
            return weights
        result = unwrapped(into).load_state_dict(weights, strict=False)
        missing = set(result.missing_keys) - set(card["details"]["left_out"])
        if missing or result.unexpected_keys:
            raise UsageError(
                f"{type(into).__qualname__} is not the model that was logged ({card['class']:.200}): missing "
                f"{sorted(missing)[:5]}, unexpected {result.unexpected_keys[:5]}. Make it with {card['config']}"
            )
        return into


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, without what compiles or distributes it."""
    import torch

    parallel = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif (
            original := getattr(module, "_orig_mod", None)
        ) is not None:  # Of torch.compile, which has no public name.
            module = original
        else:
            return module


def _distinct(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Each tensor once, on the host and in a storage of its own; and of the others which one they are the same as."""
    kept: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, given in tensors.items():
        tensor = given.detach()
        storage = tensor.untyped_storage()
        place = (
            tensor.device,
            storage.data_ptr(),
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
        )
        if tensor.numel() and place in names:
            shared[name] = names[place]
            continue
        names[place] = name
        is_whole = tensor.numel() * tensor.element_size() == storage.nbytes() and tensor.is_contiguous()
        if tensor.device.type == "cpu" and (not is_whole or storage.data_ptr() in storages):
            tensor = tensor.contiguous().clone()
        storages.add(storage.data_ptr())
        kept[name] = tensor.cpu().contiguous()
    return kept, shared


def _hyper_parameters(module: torch.nn.Module) -> dict[str, Any]:
    """Of a LightningModule: those that its class takes and JSON can hold."""
    given = getattr(module, "hparams", None)
    if not isinstance(given, Mapping):
        return {}
    parameters = inspect.signature(type(module).__init__).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    taken = {parameter.name for parameter in parameters}
    return {key: value for key, value in given.items() if (takes_all or key in taken) and is_json(value)}


def _code(module: torch.nn.Module | None, config: Mapping[str, Any], shared: Mapping[str, str], *, strict: bool) -> str:
    lines = ["from safetensors.torch import load_file", ""]
    lines += [f'weights = load_file("{_WEIGHTS}")']
    if shared:
        lines += [f"shared = {dict(shared)!r}", "weights |= {name: weights[kept] for name, kept in shared.items()}"]
    if module is None:
        return "\n".join([*lines, "model = weights"])
    lines[1:1] = ["", import_line(type(module))]
    rest = "" if strict else ", strict=False"
    return "\n".join([*lines, f"model = {call(type(module), config)}", f"model.load_state_dict(weights{rest})"])
