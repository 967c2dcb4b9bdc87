"""DeepseekV3ForCausalLM of transformers, with our architecture and weights."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import transformers
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.layouts.huggingface_config import huggingface_config
from pipeline.checkpoints.names import EXPERT_LOADS, published_name

SPECIAL_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def build_model(
    decoder: DecoderConfig, weights: Mapping[str, Tensor], device: torch.device
) -> transformers.DeepseekV3ForCausalLM:
    """The model on `device`, with attention by torch's own and experts by grouped products.

    Args:
        decoder: our architecture.
        weights: ours by their names, whole, of the type that it shall compute in; where they lie on `device` already,
            they become its own. Prediction modules and statistics of ours are left aside.
        device: where it shall compute.
    """
    alone = replace(decoder, num_nextn_predict_layers=0)
    config = transformers.DeepseekV3Config(
        **huggingface_config(alone, SPECIAL_TOKENS, "float32"), attn_implementation="sdpa"
    )
    with torch.device("meta"):
        model = transformers.DeepseekV3ForCausalLM(config)
    known = [name for name in weights if EXPERT_LOADS not in name and not name.startswith("mtp.")]
    model.load_state_dict({published_name(name, alone): weights[name] for name in known}, strict=True, assign=True)
    model.tie_weights()
    # What is no weight was made on the meta device: its angles.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.set_experts_implementation("grouped_mm")
    return model.to(device)
