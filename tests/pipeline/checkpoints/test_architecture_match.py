"""What was found, held against the architecture; test_loading.py has what that means for a model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.architecture_match import OpenOptions, complete
from pipeline.checkpoints.names import published_parts
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError, StoredTensor
from tests.conftest import TINY

PATH = Path("some/checkpoint")
LAYER = "model.layers.1.self_attn."


def in_memory(tensor: Tensor) -> StoredTensor:
    return StoredTensor(tuple(tensor.shape), tensor.dtype, PATH / "file", tensor.clone)


def found(config: DecoderConfig = TINY, dtype: torch.dtype = torch.bfloat16) -> dict[str, StoredTensor]:
    return {name: in_memory(torch.ones(part.shape).to(dtype)) for name, part in published_parts(config).items()}


def opened(tensors: dict[str, StoredTensor], config: DecoderConfig = TINY, **options: object) -> CheckpointSource:
    return complete(tensors, config, "lightning", PATH, OpenOptions(**options), step=3, left_behind=("epoch",))


def test_tensors_come_in_the_decoders_order() -> None:
    tensors = dict(reversed(found().items()))
    source = opened(tensors)
    assert list(source.tensors) == list(published_parts(TINY))
    assert (source.step, source.left_behind) == (3, ("epoch",))
    assert source.renamed == source.missing == source.unexpected == ()


def test_what_takes_the_place_of_the_missing_is_like_the_rest_and_reproducible() -> None:
    tensors = found()
    for name in ("o_proj.weight", "q_a_layernorm.weight"):
        del tensors[LAYER + name]
    source = opened(tensors, allow_missing=("*.o_proj.weight", LAYER + "q_a_*"))
    assert source.missing == (LAYER + "q_a_layernorm.weight", LAYER + "o_proj.weight")
    projection = source.tensors[LAYER + "o_proj.weight"]
    assert (projection.dtype, projection.read().dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(projection.read(), projection.read())
    other = opened(tensors, allow_missing=("*",), seed=1).tensors[LAYER + "o_proj.weight"]
    assert not torch.equal(projection.read(), other.read())
    assert torch.equal(source.tensors[LAYER + "q_a_layernorm.weight"].read(), torch.ones(16).bfloat16())


def test_all_that_is_missing_and_not_allowed_is_told_at_once() -> None:
    tensors = {name: stored for name, stored in found().items() if "o_proj" not in name and "layers.2.mlp" not in name}
    with pytest.raises(DamagedCheckpointError, match=r"output projections missing in layers 0-1, 3.*layer 2") as error:
        opened(tensors, allow_missing=("model.layers.2.self_attn.*",))
    assert "allow_missing" in str(error.value)


def test_a_tied_head_may_be_absent_and_must_not_differ() -> None:
    config = replace(TINY, tie_word_embeddings=True)
    tensors = found(config)
    del tensors["lm_head.weight"]
    source = opened(tensors, config)
    assert source.tensors["lm_head.weight"] is source.tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = in_memory(torch.zeros(40, 32).bfloat16())
    with pytest.raises(DamagedCheckpointError, match="lm_head.weight is not model.embed_tokens.weight"):
        opened(tensors, config)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(32, 2), r"the shape \[32, 2\], but the architecture asks for \[32, 24\]"),
        (torch.ones(32, 24).int(), "in torch.int32, which is read of no weight"),
        (torch.ones(32, 24).to(torch.float8_e4m3fn), r"the factors of its blocks \(.*_scale_inv\) are absent"),
    ],
)
def test_what_cannot_be_the_weight_is_refused_naming_file_and_tensor(tensor: Tensor, words: str) -> None:
    with pytest.raises(DamagedCheckpointError, match=rf"^some/checkpoint/file: {LAYER}o_proj\.weight .*{words}"):
        opened(found() | {LAYER + "o_proj.weight": in_memory(tensor)})
