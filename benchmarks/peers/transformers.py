"""DeepseekV3ForCausalLM of transformers: on a CPU, or on one GPU.

Attention is torch's own in both codes. Packed documents are told by positions that begin anew, of which transformers
makes a mask: on a CPU, and for heads whose keys and values differ in width, it has nothing faster.
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from benchmarks.peers.peer import Peer
from benchmarks.peers.transformers_model import build_model
from lightning_modules.batch import Batch


class TransformersPeer(Peer):
    """Its model, with experts by grouped products."""

    NAME = "transformers"

    def build(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The model, compiled where ours is."""
        model = build_model(self.workload.decoder, weights, self.device)
        if self.workload.trainer.compile:
            model.compile()
        return model.train()

    def logits(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Under autocast where ours computes in 16 bits."""
        positions = None if self.workload.document_length is None else batch.positions[:, : tokens.shape[1]]
        is_rounded = self.workload.precision != "fp32"
        with torch.autocast(self.device.type, torch.bfloat16) if is_rounded else nullcontext():
            return self.model(input_ids=tokens, position_ids=positions, use_cache=False).logits
