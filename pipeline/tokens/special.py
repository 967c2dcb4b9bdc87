"""Token ids that stand for no code. Light: needs no torch."""

from enum import IntEnum


class Special(IntEnum):
    """The first ids of every vocabulary; the reserved ones are free for later use."""

    PAD = 0
    BOS = 1
    EOS = 2
    RESERVED_0 = 3
    RESERVED_1 = 4
    RESERVED_2 = 5
    RESERVED_3 = 6
    RESERVED_4 = 7


def vocabulary_size(n_codebooks: int, codebook_size: int) -> int:
    """All token ids of a codec's residual codebooks, the specials among them."""
    return len(Special) + n_codebooks * codebook_size
