import math

import pytest
import torch

from pipeline.audio.codecs.codec import checked_audio, checked_codes, normalise_loudness


def test_loudness_is_the_rms_level_asked_for():
    audio = 0.5 * torch.sin(torch.arange(8000) * 0.3)
    level = 20 * math.log10(float(normalise_loudness(audio, -23.0).double().square().mean().sqrt()))
    assert level == pytest.approx(-23.0, abs=1e-4)


def test_loudness_does_not_depend_on_the_gain_of_the_recording():
    audio = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.01
    torch.testing.assert_close(normalise_loudness(audio, -23.0), normalise_loudness(7 * audio, -23.0))


def test_loudness_stops_where_the_peak_would_clip():
    click = torch.zeros(80000)
    click[40000] = 0.01
    assert float(normalise_loudness(click, -23.0).abs().max()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("audio", [torch.zeros(100), torch.zeros(0)])
def test_silence_stays_silent(audio):
    assert torch.equal(normalise_loudness(audio, -23.0), audio)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(2, 100), "mono floating-point"),
        (torch.zeros(100, dtype=torch.int16), "scale integers"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
    ],
)
def test_unusable_audio_is_refused(audio, message):
    with pytest.raises(ValueError, match=message):
        checked_audio(audio)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), "shape"),
        (torch.zeros(5, 3, dtype=torch.int64), r"\[frames, 2\]"),
        (torch.zeros(5, 2), "integers"),
        (torch.tensor([[0, 16]]), "0 … 15"),
        (torch.tensor([[-1, 0]]), "0 … 15"),
    ],
)
def test_unusable_codes_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        checked_codes(codes, 2, 16)


def test_codes_of_any_integer_type_are_taken():
    assert torch.equal(checked_codes(torch.tensor([[3, 15]], dtype=torch.uint8), 2, 16), torch.tensor([[3, 15]]))
