import math

import pytest

from pipeline.tokens.rate import bits_per_second


def test_tokens_of_eight_bits_at_a_hundred_a_second():
    assert bits_per_second(math.log(256), tokens=250, seconds=2.5) == pytest.approx(800)


def test_no_seconds_have_no_rate():
    with pytest.raises(ValueError, match="give the length of the audio"):
        bits_per_second(1.0, tokens=10, seconds=0.0)
