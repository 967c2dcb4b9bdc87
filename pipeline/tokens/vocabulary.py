"""From codes to token ids and back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.tokens.special import Special, vocabulary_size

# Beyond any codec: more is a mistake, which would cost memory before anything else said so.
LARGEST = {"n_codebooks": 256, "codebook_size": 2**20}


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of a codec with residual codebooks.

    Ids 0 to 7 are the specials; code c of codebook q is `8 + codebook_size * q + c`. The Q tokens of a frame follow one
    another from the coarsest codebook to the finest, and frames follow in time.

    Attributes:
        n_codebooks: Q, tokens a frame.
        codebook_size: codes of each codebook.
    """

    n_codebooks: int
    codebook_size: int

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or value > largest:
                raise ValueError(f"{name} is {value!r}; a vocabulary has at most {largest}.")
        if self.n_codebooks < 1 or self.codebook_size < 2:
            raise ValueError(
                f"A vocabulary of n_codebooks={self.n_codebooks} and codebook_size={self.codebook_size} says nothing; "
                "use at least one codebook of two codes."
            )

    @property
    def size(self) -> int:
        """All token ids, the specials among them."""
        return vocabulary_size(self.n_codebooks, self.codebook_size)

    def position_of(self, token: int) -> int:
        """Return the codebook a token's code belongs to.

        Raises:
            ValueError: the token is a special, or out of the vocabulary.
        """
        if not len(Special) <= token < self.size:
            raise ValueError(f"Token {token} stands for no code; codes are {len(Special)} to {self.size - 1}.")
        return (int(token) - len(Special)) // self.codebook_size

    def codes_to_tokens(self, codes: Tensor | np.ndarray) -> Tensor:
        """Return the int64 tokens [F * Q] of integer codes [F, Q].

        Raises:
            ValueError: the codes have another shape or type, or lie outside their codebook.
        """
        codes = torch.as_tensor(codes)
        if codes.ndim != 2 or codes.shape[1] != self.n_codebooks or codes.is_floating_point():
            raise ValueError(
                f"Codes must be integers of shape [frames, {self.n_codebooks}], not {codes.dtype} of shape "
                f"{list(codes.shape)}; encode with the codec that this vocabulary was made for."
            )
        codes = codes.to(torch.int64)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(
                f"Codes run from {int(codes.min())} to {int(codes.max())}, outside a codebook of {self.codebook_size}; "
                "encode with the codec that this vocabulary was made for."
            )
        return (codes + self._offsets().to(codes.device)).reshape(-1)

    def tokens_to_codes(self, tokens: Tensor | np.ndarray) -> Tensor:
        """Return the int64 codes [F, Q] of tokens [T]; specials and a last incomplete frame are dropped.

        Raises:
            ValueError: a token is out of the vocabulary, or out of its codebook's turn.
        """
        tokens = torch.as_tensor(tokens).to(torch.int64)
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.size:
            raise ValueError(
                f"Tokens run from {int(tokens.min())} to {int(tokens.max())}, outside a vocabulary of {self.size}."
            )
        offset_codes = tokens[tokens >= len(Special)] - len(Special)
        positions = offset_codes // self.codebook_size
        expected = torch.arange(len(offset_codes), device=tokens.device) % self.n_codebooks
        misplaced = torch.nonzero(positions != expected)
        if len(misplaced):
            first = int(misplaced[0])
            raise ValueError(
                f"Code token {first} belongs to codebook {int(positions[first])} where codebook {int(expected[first])} "
                "is due; mask the logits with `allowed_mask` when generating."
            )
        n_frames = len(offset_codes) // self.n_codebooks
        return (offset_codes % self.codebook_size)[: n_frames * self.n_codebooks].reshape(n_frames, self.n_codebooks)

    def document(self, codes: Tensor | np.ndarray) -> np.ndarray:
        """Return one utterance's codes [F, Q] as int64 tokens [1 + F * Q + 1]: BOS, the codes, EOS.

        Raises:
            ValueError: the codes do not suit the vocabulary (see `codes_to_tokens`).
        """
        tokens = self.codes_to_tokens(codes).cpu().numpy()
        return np.concatenate([[Special.BOS], tokens, [Special.EOS]]).astype(np.int64)

    def allowed_mask(self) -> Tensor:
        """Return which ids are legal where each codebook is due, bool [Q, size]; where the first is, EOS is too."""
        positions = (torch.arange(self.size) - len(Special)).div(self.codebook_size, rounding_mode="floor")
        mask = positions == torch.arange(self.n_codebooks)[:, None]
        mask[0, Special.EOS] = True
        return mask

    def _offsets(self) -> Tensor:
        return len(Special) + self.codebook_size * torch.arange(self.n_codebooks)
