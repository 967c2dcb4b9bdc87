"""One step of decoding: a few new tokens of every row through the decoder."""

from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder


def extend_rows(decoder: Decoder, tokens: Tensor, cache: LatentCache) -> Tensor:
    """`Decoder.extend_hidden`, for a few new tokens a row, in the fastest way that there is for these.

    Args:
        decoder: the model, in evaluation mode.
        tokens: [B, T] what follows the tokens that `cache` holds; T is 1, or more where tokens were drafted.
        cache: of these rows, whose lengths move on by T. On a GPU a way may neither wait for the device nor depend on
            the lengths otherwise than there: it is recorded once and replayed as rows grow.

    Returns:
        Hidden states [B, T, D], from which `lm_head` scores the next token.
    """
    return decoder.extend_hidden(tokens, cache)
