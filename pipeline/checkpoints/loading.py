"""Checkpoints of any layout, loaded into a model: what is missing, renamed or too many is said."""

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.model.block_scaled import Matrix, fits_blocks, keep_in_fp8
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.counting import build_on_meta
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.architecture_match import OpenOptions, check_missing
from pipeline.checkpoints.choices import TRAINED
from pipeline.checkpoints.integrity import check_finite, verify_bytes
from pipeline.checkpoints.names import own_parts, own_tensors, published_parts
from pipeline.checkpoints.quantisation import RoundingLog, retype
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource, separate_sentence

log = logging.getLogger(__name__)

# Of an architecture, what no weight and no result depends on; prediction modules show in what is missing or too many.
INCIDENTAL = ("initializer_range", "max_position_embeddings", "num_nextn_predict_layers")


def load_checkpoint_compatible(
    path: Path | str,
    model: nn.Module,
    strict: bool = True,
    *,
    allow_missing: Sequence[str] = (),
    layout: str | None = None,
    rename_legacy: bool = True,
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Load a checkpoint of any layout into a model, in place.

    Weights that the checkpoint lacks are an error, whatever `strict` says, for they would stay random. Expert loads,
    which old checkpoints lack, begin at zero. When anything is raised, nothing of the model has changed.

    Args:
        path: a file or folder.
        model: a `Decoder`, or a module that has one as `decoder`.
        strict: whether weights that the model has no place for are an error; else they are reported.
        allow_missing: globs of published names, such as `*.o_proj.weight`, that may be missing and become random.
        layout: the registry's name; None: what is recognised.
        rename_legacy: give weights called by names of the past (`out_proj`) their names of today.

    Returns:
        - What the checkpoint is: `layout`, `path`, `step` (None: it does not tell), `config` (a dictionary), `renamed`
          as pairs of (name in the file, published name of today), `initialised`, published names of what began anew,
          and `left_behind`, what else the file holds.
        - The decoder's names of what was missing: what is random now, or was begun anew. Prediction modules that the
          checkpoint's architecture does not have stay as they are.
        - The file's names of what was too many.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        DamagedCheckpointError: when it is damaged, or lacks weights.
        ValueError: when it holds another model, or more than it with `strict`.
    """
    decoder = _decoder_of(model)
    source = open_checkpoint(Path(path), layout, OpenOptions(decoder.config, rename_legacy, tuple(allow_missing)))
    _check_architecture(source, decoder.config)
    if source.separate:
        raise ValueError(separate_sentence(source))
    needed = published_parts(decoder.config)
    kept = tuple(name for name in needed if name not in source.tensors)
    check_missing(kept, tuple(allow_missing), source.path)
    unexpected = [*source.unexpected, *(name for name in source.tensors if name not in needed)]
    if strict and unexpected:
        raise ValueError(
            f"{path} holds {len(unexpected)} tensors that the model has no place for, such as {unexpected[0]}; "
            "strict=False loads the rest."
        )
    verify_bytes(source.path)
    _copy(read_weights(source, decoder.config), decoder)
    absent = {*source.missing, *source.initialised, *kept}
    missing = [own for own, names in own_parts(decoder.config).items() if not absent.isdisjoint(names)]
    return _describe(source), missing, unexpected


def load_decoder(
    path: Path | str,
    layout: str | None = None,
    config: DecoderConfig | None = None,
    keep_fp8: bool = False,
    weights: str = TRAINED,
) -> Decoder:
    """Build the decoder that a checkpoint of any layout holds, ready for inference.

    Weights keep their type; FP8 becomes BF16.

    Args:
        path: a file or folder.
        layout: the registry's name; None: what is recognised.
        config: the architecture, for layouts that do not tell it.
        keep_fp8: hold in FP8 what the file does, where blocks fit heads and experts: the same numbers in half the
            memory, which decoding on a GPU reads as they are. Such a decoder can move, but not change its type.
        weights: `trained`, or `ema`: the running mean that a training checkpoint may hold.

    Raises:
        FileNotFoundError, ValueError: when the checkpoint is absent, incomplete or damaged.
    """
    options = OpenOptions(config, weights=weights)
    source = open_checkpoint(Path(path), layout, options)
    if source.separate:
        log.warning("%s Loaded without them.", separate_sentence(source))
        source = open_checkpoint(Path(path), layout, replace(options, drop=("mtp",)))
    decoder = build_on_meta(source.config)
    kept = _blocks_of(source) if keep_fp8 and fits_blocks(source.config) else {}
    decoder.load_state_dict(read_weights(source, source.config, kept), assign=True, strict=not kept)
    for name, matrix in kept.items():
        module, _, parameter = name.rpartition(".")
        assert matrix.scales is not None
        keep_in_fp8(decoder.get_submodule(module), parameter, matrix.values, matrix.scales)
    decoder.tie_weights()
    return decoder.eval()


def _blocks_of(source: CheckpointSource) -> dict[str, Matrix]:
    """The weights of a source that are in FP8, with their scales, under the decoder's own names."""
    shapes, kept = own_tensors(source.config), {}
    for own, names in own_parts(source.config).items():
        stored = [source.tensors[name] for name in names if name in source.tensors]
        scales = [part.scale for part in stored if part.scale is not None]
        if len(scales) < len(names):
            continue
        values, factors = [part.read() for part in stored], [scale.read() for scale in scales]
        for name, value, factor, part in zip(names, values, factors, stored, strict=True):
            check_finite(name, value, part.file)
            check_finite(name, factor, part.file)
        shape = shapes[own].shape
        # A stack is its experts' matrices one after the other; FP8 tensors of torch cannot be joined by themselves.
        joined = torch.cat([value.view(torch.uint8) for value in values]).view(values[0].dtype)
        kept[own] = Matrix(joined.reshape(shape), torch.cat(factors).reshape(*shape[:-2], -1, factors[0].shape[1]))
    return kept


def read_weights(
    source: CheckpointSource, config: DecoderConfig, without: Container[str] = frozenset()
) -> dict[str, Tensor]:
    """All weights of a source that a decoder has a place for, under the decoder's own names; FP8 as BF16.

    Args:
        source: the checkpoint.
        config: the decoder's.
        without: own names of what to leave out.

    Raises:
        DamagedCheckpointError: when there is a number among them that is none.
    """
    quantised = {name: stored for name, stored in source.tensors.items() if stored.scale is not None}
    tensors = {**source.tensors, **retype(quantised, "bfloat16", RoundingLog())}
    shapes = own_tensors(config)
    weights = {}
    for own, names in own_parts(config).items():
        if own in without or any(name not in tensors for name in names):
            continue
        parts = []
        for name in names:
            parts.append(tensors[name].read())
            check_finite(name, parts[-1], tensors[name].file)
        # A stack is its experts' matrices one after the other.
        weights[own] = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(shapes[own].shape)
    return weights


def _decoder_of(model: nn.Module) -> Decoder:
    """The decoder itself, or a module's.

    Raises:
        ValueError: when there is none, or it cannot be filled in place.
    """
    decoder = model if isinstance(model, Decoder) else getattr(model, "decoder", None)
    if not isinstance(decoder, Decoder):
        raise ValueError(f"{type(model).__name__} is no Decoder, and has none as `decoder`; pass one of the two.")
    if any(tensor.is_meta or hasattr(tensor, "to_local") for tensor in decoder.state_dict().values()):
        raise ValueError("The decoder is sharded or on the meta device; load into one that is whole, and in memory.")
    return decoder


def _check_architecture(source: CheckpointSource, config: DecoderConfig) -> None:
    """Raise a `ValueError` unless the checkpoint's decoder computes what the model does."""
    theirs, ours = _comparable(source.config), _comparable(config)
    differing = [name for name in ours if theirs[name] != ours[name]]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{source.path} holds another model: {name} is {theirs[name]} there, and {ours[name]} here"
            + (f"; {', '.join(differing[1:])} differ as well." if differing[1:] else ".")
        )


def _comparable(config: DecoderConfig) -> dict[str, Any]:
    """What has to be equal; independent segments of one width, and groups of one, are what exports call them."""
    if not config.routes_hierarchically and len(set(config.segment_sizes)) == 1:
        config = config.with_segments_as_experts()
    config = config.without_groups_of_one()
    return {name: value for name, value in asdict(config).items() if name not in INCIDENTAL}


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], decoder: Decoder) -> None:
    targets = decoder.state_dict()
    for name, weight in weights.items():
        targets[name].copy_(weight)


def _describe(source: CheckpointSource) -> dict[str, Any]:
    return {
        "layout": source.layout,
        "path": str(source.path),
        "step": source.step,
        "config": asdict(source.config),
        "renamed": list(source.renamed),
        "initialised": list(source.initialised),
        "left_behind": list(source.left_behind),
    }
