"""The latent cache of incremental decoding, as an explicit object."""

from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig

# Numbers of a latent that share one FP8 scale: the tile of DeepSeek-V3's activations (arXiv 2412.19437, section 3.3.2).
TILE_WIDTH = 128
FP8 = torch.float8_e4m3fn
FP8_MAXIMUM = torch.finfo(FP8).max
# Keeps a tile of zeros from being divided by zero; no real latent is this small, for it has been normalised.
SMALLEST_MAXIMUM = 1e-30


def quantise_tiles(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round `values` [..., R] to FP8 (E4M3), each tile of `TILE_WIDTH` by its own scale; the last may be narrower.

    Returns:
        FP8 values [..., R] and FP32 scales [..., ceil(R / TILE_WIDTH)]; `dequantise_tiles` multiplies them back.
    """
    width = values.shape[-1]
    tiles = F.pad(values.float(), (0, -width % TILE_WIDTH)).unflatten(-1, (-1, TILE_WIDTH))
    scales = tiles.abs().amax(dim=-1).clamp_min(SMALLEST_MAXIMUM) / FP8_MAXIMUM
    return (tiles / scales[..., None]).flatten(-2)[..., :width].to(FP8), scales


def dequantise_tiles(values: Tensor, scales: Tensor) -> Tensor:
    """Return the FP32 numbers [..., R] that FP8 `values` [..., R] and their tiles' `scales` stand for."""
    width = values.shape[-1]
    return values.float() * scales.repeat_interleave(TILE_WIDTH, dim=-1)[..., :width]


class LatentCache:
    """What attention remembers of the tokens so far: a latent and a rotated shared key a token and layer.

    Nothing is kept per head: a token costs `kv_lora_rank + qk_rope_head_dim` numbers a layer
    (arXiv 2412.19437, section 2.1.1). With `fp8`, the latent takes one byte a number and four a tile of 128: for
    DeepSeek-V3's dimensions 656 bytes a token and layer where BF16 takes 1152. The rotated key stays in `dtype`.

    Args:
        config: the decoder's architecture.
        batch_size: rows.
        capacity: tokens a row can hold.
        dtype: of the rotated keys, and of the latents unless `fp8`: that of the decoder's activations.
        device: where to keep it; on `meta` it can be measured without being allocated.
        fp8: store the latents in FP8 (E4M3) with one FP32 scale a token and tile.
        n_layers: layers to remember; those of the decoder proper when None. The multi-token-prediction modules keep a
            cache of their own, for they look at other positions than the decoder does while they draft.

    Attributes:
        latent: normalised latents [layers, B, capacity, kv_lora_rank].
        latent_scale: FP32 scales of the latents' tiles [layers, B, capacity, tiles]; None unless `fp8`.
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
        fp8: bool = False,
        n_layers: int | None = None,
    ) -> None:
        shape = (config.num_hidden_layers if n_layers is None else n_layers, batch_size, capacity)
        self.latent = torch.zeros(*shape, config.kv_lora_rank, dtype=FP8 if fp8 else dtype, device=device)
        self.latent_scale: Tensor | None = None
        if fp8:
            self.latent_scale = torch.zeros(*shape, -(-config.kv_lora_rank // TILE_WIDTH), device=device)
        self.rope_key = torch.zeros(*shape, config.qk_rope_head_dim, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.capacity = capacity
        self._longest = 0  # the greatest length, kept on the host so that slicing needs no device sync
        self._is_even = True

    @property
    def bytes_per_token(self) -> float:
        """Bytes that one token of one row takes in all layers together, measured from the tensors."""
        tensors = [self.latent, self.rope_key] + ([] if self.latent_scale is None else [self.latent_scale])
        return sum(tensor.nbytes for tensor in tensors) / (self.latent.shape[1] * self.capacity)

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
        rows = torch.arange(latent.shape[0], device=latent.device)[:, None]
        columns = self.positions(n_tokens)
        self.rope_key[layer][rows, columns] = rope_key.to(self.rope_key.dtype)
        if self.latent_scale is None:
            self.latent[layer][rows, columns] = latent.to(self.latent.dtype)
        else:
            self.latent[layer][rows, columns], self.latent_scale[layer][rows, columns] = quantise_tiles(latent)
        return self.held(layer, n_tokens, latent.dtype)

    def held(self, layer: int, n_new: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Latents [B, S, R] and keys [B, S, P] of a layer as far as the longest row goes with `n_new` tokens more."""
        extent = self.extent(n_new)
        latent, keys = self.latent[layer, :, :extent], self.rope_key[layer, :, :extent].to(dtype)
        if self.latent_scale is None:
            return latent.to(dtype), keys
        return dequantise_tiles(latent, self.latent_scale[layer, :, :extent]).to(dtype), keys

    def advance(self, n_tokens: int) -> None:
        """Count `n_tokens` more tokens in every row."""
        self.lengths += n_tokens
        self._longest += n_tokens

    def truncate(self, lengths: Tensor | int) -> None:
        """Forget what lies beyond `lengths`, one for all rows or one each [B].

        That is needed after a padded prefill, and when drafted tokens were refused.
        """
        if isinstance(lengths, int):
            self.lengths.clamp_(max=lengths)
            self._longest = min(self._longest, lengths)
        else:
            self._is_even = len(self.lengths) == 1
            self.lengths.copy_(torch.minimum(self.lengths, lengths.to(self.lengths.device)))
            self._longest = int(self.lengths.max())

    def hold(self, lengths: Tensor, longest: int) -> None:
        """Let each row hold as many tokens as `lengths` [B] says, on the device; none holds more than `longest`."""
        self.lengths.copy_(lengths)
        self._longest = longest
        self._is_even = longest == 0

    def first_rows(self, n_rows: int) -> "LatentCache":
        """A cache of the first rows, in the same memory."""
        rows = copy(self)
        rows.latent, rows.rope_key = self.latent[:, :n_rows], self.rope_key[:, :n_rows]
        rows.latent_scale = None if self.latent_scale is None else self.latent_scale[:, :n_rows]
        rows.lengths = self.lengths[:n_rows]
        return rows

    def replace_rows(self, rows: Tensor, other: "LatentCache") -> None:
        """Let the numbered `rows` hold what the rows of `other`, a shorter cache of the same kind, hold."""
        tensors = [(self.latent, other.latent), (self.rope_key, other.rope_key)]
        if self.latent_scale is not None and other.latent_scale is not None:
            tensors.append((self.latent_scale, other.latent_scale))
        for mine, theirs in tensors:
            mine[:, rows, : other.capacity] = theirs
        self.lengths[rows] = other.lengths
        self._longest = max(self._longest, other.longest)
        self._is_even = False

    def like(self, config: DecoderConfig, batch_size: int, capacity: int, n_layers: int | None = None) -> "LatentCache":
        """An empty cache of the same kind, for other rows, or other layers."""
        n_layers = len(self.latent) if n_layers is None else n_layers
        is_fp8, dtype, device = self.latent_scale is not None, self.rope_key.dtype, self.rope_key.device
        return LatentCache(config, batch_size, capacity, dtype, device, is_fp8, n_layers)

    @property
    def longest(self) -> int:
        """The greatest length, or more, known without asking the device."""
        return self._longest

    @property
    def is_even(self) -> bool:
        """Whether every row is known to hold exactly as many tokens as the longest."""
        return self._is_even
