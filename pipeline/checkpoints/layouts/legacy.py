"""Pickles of the past: weights alone, wrapped and prefixed in many ways, and no word of their architecture.

`OpenOptions.config` has to tell that. The weights are found under `model`, `state_dict` or `model_state_dict`, or lie
at the top; wrappers of modules (`module.`, `_orig_mod.`) are taken off their names. `out_proj`, as the output
projection of attention was called, and expert loads, which were not saved, are seen to by `opening`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.architecture_match import OpenOptions, complete
from pipeline.checkpoints.files.pickle_file import open_pickle, stored
from pipeline.checkpoints.files.raw_tensor import check_name
from pipeline.checkpoints.names import published_parts
from pipeline.checkpoints.slices import split_own
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError, StoredTensor

NAME = "legacy"
LOOKS_FOR = "a file of torch with weights, under model, state_dict or model_state_dict or at the top"
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "decoder.", "model.")
STEPS = ("global_step", "step")


def recognises(path: Path) -> bool:
    """Whether there is a file; `open_source` says what is wrong with it."""
    return path.is_file()


def names(config: DecoderConfig) -> dict[str, str]:
    """What the tensors are called whose parts have published names: as the decoder calls its own."""
    return {name: part.own for name, part in published_parts(config).items()}


def open_source(path: Path, options: OpenOptions) -> CheckpointSource:
    """Open a pickle of weights.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when it is damaged, would run code, or holds another model.
        ValueError: when `options.config` does not tell the architecture.
    """
    weights, rest = _unwrap(open_pickle(path), path)
    if options.config is None:
        raise ValueError(
            f"{path} holds weights, and does not say of which architecture; give it the model's configuration."
        )
    tensors = {name: stored(tensor, path) for name, tensor in _without_prefixes(weights, path).items()}
    found = split_own(tensors, options.config, path)
    step = next((rest[key] for key in STEPS if type(rest.get(key)) is int), None)
    left_behind = tuple(sorted(rest.keys() - set(STEPS)))
    return complete(
        _published(found, options.config), options.config, NAME, path, options, step=step, left_behind=left_behind
    )


def _unwrap(content: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights, and what lay beside them on the way there."""
    rest: dict[str, Any] = {}
    while (wrapper := next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)) is not None:
        rest |= {str(key): value for key, value in content.items() if key != wrapper}
        content = content[wrapper]
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    rest |= {str(key): value for key, value in content.items() if key not in weights}
    if not weights:
        raise DamagedCheckpointError(
            f"{path} holds no weights, neither at the top nor under {', '.join(WRAPPERS)}; it is no checkpoint."
        )
    return weights, rest


def _without_prefixes(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    bare: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = check_name(name, path).replace("._orig_mod.", ".")
        while (prefix := next((prefix for prefix in PREFIXES if short.startswith(prefix)), None)) is not None:
            short = short.removeprefix(prefix)
        if short in bare:
            raise DamagedCheckpointError(
                f"{path} holds {short} twice, once as {name}: it holds more than one model; save the one that you mean."
            )
        bare[short] = tensor
    return bare


def _published(found: Mapping[str, StoredTensor], config: DecoderConfig) -> dict[str, StoredTensor]:
    """Names that were published ones before they lost their prefix get it back."""
    parts = published_parts(config)
    return {f"model.{name}" if f"model.{name}" in parts else name: tensor for name, tensor in found.items()}
