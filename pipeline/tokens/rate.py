"""Losses in units that do not depend on the tokens."""

import math


def bits_per_second(loss_nats_per_token: float, tokens: int, seconds: float) -> float:
    """Return what a mean loss over `tokens` comes to in bits for each of the `seconds` of audio they stand for.

    Unlike a loss per token, it can be compared between codecs of different frame rates and codebooks, provided that
    they keep equally much of the speech.

    Raises:
        ValueError: there are no seconds to divide by.
    """
    if seconds <= 0:
        raise ValueError(f"{tokens} tokens last {seconds} seconds; give the length of the audio they stand for.")
    return loss_nats_per_token / math.log(2) * tokens / seconds
