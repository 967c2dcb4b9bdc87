"""The latent cache of incremental decoding, as an explicit object."""

import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig


class LatentCache:
    """What attention remembers of the tokens so far: a latent and a rotated shared key a token and layer.

    Nothing is kept per head: a token costs `kv_lora_rank + qk_rope_head_dim` numbers a layer
    (arXiv 2412.19437, section 2.1.1).

    Attributes:
        latent: normalised latents [layers, B, capacity, kv_lora_rank].
        rope_key: rotated shared keys [layers, B, capacity, qk_rope_head_dim].
        lengths: tokens held for each row [B]. Rows may differ: what lies beyond a row's length is never attended to.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_hidden_layers, batch_size, capacity)
        self.latent = torch.zeros(*shape, config.kv_lora_rank, dtype=dtype, device=device)
        self.rope_key = torch.zeros(*shape, config.qk_rope_head_dim, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.capacity = capacity
        self._longest = 0  # the greatest length, kept on the host so that slicing needs no device sync

    def positions(self, n_tokens: int) -> Tensor:
        """Positions [B, n_tokens] at which the next `n_tokens` tokens of each row sit."""
        return self.lengths[:, None] + torch.arange(n_tokens, device=self.lengths.device)

    def extent(self, n_tokens: int) -> int:
        """How many cached positions attention has to look at once `n_tokens` more are appended.

        Raises:
            ValueError: when they do not fit.
        """
        extent = self._longest + n_tokens
        if extent > self.capacity:
            raise ValueError(f"The cache holds {self.capacity} tokens, {extent} are needed; allocate a larger one.")
        return extent

    def append(self, layer: int, latent: Tensor, rope_key: Tensor) -> tuple[Tensor, Tensor]:
        """Store new latents [B, T, R] and keys [B, T, P] of a layer, and return all of that layer, the new included.

        Lengths move only with `advance`, once every layer has appended.
        """
        n_tokens = latent.shape[1]
        extent = self.extent(n_tokens)
        rows = torch.arange(latent.shape[0], device=latent.device)[:, None]
        columns = self.positions(n_tokens)
        self.latent[layer][rows, columns] = latent.to(self.latent.dtype)
        self.rope_key[layer][rows, columns] = rope_key.to(self.rope_key.dtype)
        return self.latent[layer, :, :extent].to(latent.dtype), self.rope_key[layer, :, :extent].to(rope_key.dtype)

    def advance(self, n_tokens: int) -> None:
        """Count `n_tokens` more tokens in every row."""
        self.lengths += n_tokens
        self._longest += n_tokens

    def truncate(self, lengths: Tensor) -> None:
        """Forget what lies beyond `lengths` [B]: after a padded prefill, or when drafted tokens were refused."""
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths.device))
        self._longest = int(self.lengths.max())
