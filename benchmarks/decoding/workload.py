"""What is decoded: a preset of conf/model, random weights and random tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.presets import compose, read_decoder
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Tokens at the end of a context that a row has for itself; all before them are the same for all rows.
N_OWN = 64


@dataclass(frozen=True)
class DecodingWorkload:
    """Rows that are continued.

    Rows share their beginning, which is computed once and copied: to fill 64 rows of 16,384 tokens one by one takes
    transformers a minute. Their ends, and whatever is drawn afterwards, differ, and so do the experts that they choose.

    Attributes:
        decoder: the architecture, long enough for all steps.
        precision: of weights, activations and, unless `fp8_cache`, of the cache: a key of `DTYPES`.
        batch: rows.
        context: tokens of a row before the first step.
        n_steps: how many are taken.
        fp8_cache: keep our latents in FP8.
        seed: of weights and tokens.
    """

    decoder: DecoderConfig
    precision: str
    batch: int
    context: int
    n_steps: int
    fp8_cache: bool
    seed: int

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def capacity(self) -> int:
        """Tokens that a row has in the end, at most."""
        return self.context + self.n_steps * (1 + self.n_drafts)

    @property
    def n_drafts(self) -> int:
        """Tokens that are drafted in a step; none: the decoder does not speculate."""
        return self.decoder.num_nextn_predict_layers

    def rows(self) -> Tensor:
        """The contexts whole [B, T]."""
        return torch.cat((self.shared_tokens().expand(self.batch, -1), self.own_tokens()), dim=1)

    def shared_tokens(self) -> Tensor:
        """What all rows begin with [1, T]."""
        return self.prompts()[:1, : self.context - self._n_own]

    def own_tokens(self) -> Tensor:
        """What every row has after that [B, T]."""
        return self.prompts()[:, self.context - self._n_own :]

    def prompts(self) -> Tensor:
        """Contexts without anything in common [B, T]."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(self.decoder.vocab_size, (self.batch, self.context), generator=generator)

    def build(self, device: torch.device | str) -> Decoder:
        """The decoder with random weights, drawn on the device: gigabytes take the CPU a while."""
        with torch.device("meta"):
            decoder = Decoder(self.decoder)
        # Buffers stay FP32, as in an export.
        for parameter in decoder.parameters():
            parameter.data = parameter.data.to(self.dtype)
        decoder.to_empty(device=device)
        decoder.tie_weights()
        generator = torch.Generator(device).manual_seed(self.seed)
        for parameter in decoder.parameters():
            if parameter.ndim == 1:
                parameter.data.fill_(1)
            else:
                parameter.data.normal_(std=self.decoder.initializer_range, generator=generator)
        for router in decoder.routers():
            router.reset_balance()
        return decoder.eval()

    @property
    def _n_own(self) -> int:
        return min(N_OWN, self.context - 1)


def compose_decoding(
    overrides: Sequence[str], precision: str, batch: int, context: int, n_steps: int, fp8_cache: bool
) -> DecodingWorkload:
    """The workload of a decoder that Hydra composes of the default experiment and `overrides`.

    Raises:
        ValueError: naming the setting that cannot be.
    """
    if context < 2:
        raise ValueError(f"context is {context}; rows begin with something in common, and end with something else.")
    values = compose(overrides)
    decoder, _ = read_decoder(values)
    positions = max(decoder.max_position_embeddings, context + n_steps)
    decoder = replace(decoder, max_position_embeddings=positions)
    return DecodingWorkload(decoder, precision, batch, context, n_steps, fp8_cache, values["seed"])
