import math

import numpy as np
import pytest
import torch

from pipeline.audio.codecs.codec import normalise_loudness
from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec


@pytest.fixture
def codec():
    return MuLawCodec(MuLawConfig(sample_rate=8000, quantization_channels=256, loudness_db=-23.0))


def test_codes_follow_the_closed_formula(codec, speech):
    audio = normalise_loudness(speech(1.0, seed=0), -23.0)
    x = audio.double().numpy()
    companded = np.sign(x) * np.log1p(255 * np.abs(x)) / math.log1p(255)
    level = (companded + 1) / 2 * 255 + 0.5
    codes = codec.encode(audio)[:, 0].numpy()
    # In float32 a value next to a rounding edge may fall to its other side.
    edge = np.abs(level - np.round(level)) < 1e-3
    np.testing.assert_array_equal(codes[~edge], np.floor(level[~edge]))
    assert edge.mean() < 0.02


def test_decoding_follows_the_closed_formula(codec):
    codes = torch.arange(256)[:, None]
    companded = 2 * np.arange(256) / 255 - 1
    expected = np.sign(companded) * (256 ** np.abs(companded) - 1) / 255
    np.testing.assert_allclose(codec.decode(codes).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_round_trip_is_near_transparent(codec, speech):
    audio = normalise_loudness(speech(1.0, seed=1), -23.0)
    error = codec.decode(codec.encode(audio)) - audio
    assert 10 * math.log10(float(audio.square().mean() / error.square().mean())) > 30


def test_one_code_a_sample(codec):
    audio = torch.randn(1234)
    codes = codec.encode(audio)
    assert codes.shape == (1234, 1)
    assert (codec.sample_rate, codec.frame_rate, codec.n_codebooks, codec.codebook_size) == (8000, 8000.0, 1, 256)
    assert codec.decode(codes[:0]).shape == (0,)


def test_loud_peaks_keep_their_codes_in_range(codec):
    audio = torch.zeros(80000)
    audio[5], audio[6] = 1.0, -1.0
    codes = codec.encode(audio)
    assert (int(codes.max()), int(codes.min())) == (255, 0)


def test_stream_is_immediate(codec):
    codes = torch.randint(256, (50, 1))
    stream = codec.stream()
    samples = [stream.push(codes[:7]), stream.push(codes[7:])]
    assert len(samples[0]) == 7
    assert torch.equal(torch.cat([*samples, stream.finish()]), codec.decode(codes))
