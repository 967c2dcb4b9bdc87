"""Does `transformers`, where it is installed, compute of a source what the decoder computes?

Source and target of a conversion agree also where both were read wrongly. What config.json means is therefore asked of
code that we did not write: it gets the source's own config.json, and the source's weights.
"""

import importlib.util
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.files.json_object import read_json_object
from pipeline.checkpoints.layouts import huggingface
from pipeline.checkpoints.layouts.huggingface_config import CONFIG_FILE
from pipeline.checkpoints.names import own_parts, published_parts
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.conversion.check import FAIL, PASS, SKIPPED, WARN, Check
from pipeline.conversion.held_out import CannotRunError, assemble

NAME = "transformers"
N_ROWS, N_TOKENS = 2, 96
# Mean Kullback-Leibler divergence in nats a token: rounding in FP32 stays below 1e-8, a wrong scale is above 1e-2.
BOUND = 1e-5
# What is of their code, of training, or of how weights are stored.
OF_OTHERS = ("auto_map", "quantization_config", "torch_dtype", "dtype", "transformers_version", "model_type")


def check_against_transformers(source: CheckpointSource, max_bytes: int) -> Check:
    """Run a source of the published layout here and in `transformers`, on tokens drawn at random.

    Args:
        source: skipped where it is of another layout, whose meaning only this house knows.
        max_bytes: memory that the two models together may take.
    """
    if source.layout != huggingface.NAME:
        return Check(NAME, SKIPPED, f"transformers knows no {source.layout} checkpoints")
    if source.missing:
        return Check(NAME, SKIPPED, "random weights have no meaning to compare")
    if importlib.util.find_spec("transformers") is None:
        return Check(NAME, SKIPPED, "transformers is not installed (the extra `pretrained`)")
    if source.config.scoring_func != "sigmoid":
        return Check(NAME, SKIPPED, "transformers scores experts by sigmoid alone")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(source.config.vocab_size, (N_ROWS, N_TOKENS), generator=generator)
    try:
        decoder = assemble(source, max_bytes // 2)
        ours = _own_logits(decoder, tokens)
    except CannotRunError as error:
        return Check(NAME, SKIPPED, f"twice the model: {error}")
    try:
        theirs = _their_logits(source, decoder, tokens)
    # Whatever their code raises of a configuration that ours reads.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Check(NAME, WARN, f"it cannot run the source ({reason})")
    return judge(ours, theirs)


def judge(ours: Tensor, theirs: Tensor) -> Check:
    """Say what the difference between logits [tokens, V] of the two means."""
    before, after = theirs.double(), ours.double()
    divergence = float(F.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean"))
    largest = float((before - after).abs().max())
    numbers = {"tokens": len(before), "divergence": divergence, "largest_difference": largest, "bound": BOUND}
    if math.isfinite(divergence) and divergence <= BOUND:
        return Check(NAME, PASS, f"it computes the same of {len(before)} tokens, {divergence:.1g} nats apart", numbers)
    sentence = f"it computes other logits of the source, up to {largest:.2g} apart: config.json is read in two ways"
    return Check(NAME, FAIL, sentence, numbers)


@torch.inference_mode()
def _own_logits(decoder: Decoder, tokens: Tensor) -> Tensor:
    return decoder.next_token_logits(tokens)[0].flatten(0, 1)


@torch.inference_mode()
def _their_logits(source: CheckpointSource, decoder: Decoder, tokens: Tensor) -> Tensor:
    import transformers

    described: dict[str, Any] = read_json_object(source.path / CONFIG_FILE)
    described = {name: value for name, value in described.items() if name not in OF_OTHERS}
    config = transformers.DeepseekV3Config(**described)
    transformers.logging.set_verbosity_error()
    with torch.device("meta"):
        model = transformers.DeepseekV3ForCausalLM(config)
    model.load_state_dict(_their_weights(decoder, model.state_dict()), strict=True, assign=True)
    # What is no weight was made on the meta device: their angles.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()(tokens).logits.flatten(0, 1)


def _their_weights(decoder: Decoder, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's weights as theirs: both stack experts alike, and name the rest as published."""
    parts = published_parts(decoder.config)
    weights = {}
    for own, names in own_parts(decoder.config).items():
        stack = parts[names[0]].expert is not None
        name = f"model.{own}" if stack else names[0]
        if name in expected:
            weights[name] = decoder.state_dict()[own]
    # Theirs are there, empty, where ours are not.
    absent = {name: torch.empty(tensor.shape) for name, tensor in expected.items() if tensor.numel() == 0}
    return absent | weights
