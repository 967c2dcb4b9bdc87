import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from pipeline.audio.codecs.codec import normalise_loudness
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance


def test_shapes_rates_and_ranges(mel_rvq, speech):
    codes = mel_rvq.encode(speech(2.0, seed=100))
    assert codes.shape == (101, 3)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < 32
    assert (mel_rvq.sample_rate, mel_rvq.n_codebooks, mel_rvq.codebook_size, mel_rvq.frame_rate) == (8000, 3, 32, 50.0)
    assert mel_rvq.decode(codes).shape == (101 * 160,)


def test_unheard_speech_survives(mel_rvq, speech, convergence, log_distance):
    audio = normalise_loudness(speech(3.0, seed=101), -23.0)
    decoded = mel_rvq.decode(mel_rvq.encode(audio))
    random = mel_rvq.decode(torch.randint(32, (151, 3), generator=torch.Generator().manual_seed(0)))
    assert convergence(audio, decoded) < 0.85 < 1.0 < convergence(audio, random)
    assert log_distance(audio, decoded) < 0.6 * log_distance(audio, random)


def test_loudness_of_the_recording_does_not_change_the_codes(mel_rvq, speech):
    audio = speech(1.0, seed=102)
    assert (mel_rvq.encode(audio) == mel_rvq.encode(0.05 * audio)).float().mean() > 0.99


@pytest.mark.parametrize(("n_samples", "n_frames"), [(0, 0), (1, 1), (100, 1), (300, 2)])
def test_audio_shorter_than_a_window_is_encoded(mel_rvq, n_samples, n_frames):
    codes = mel_rvq.encode(0.1 * torch.randn(n_samples))
    assert codes.shape == (n_frames, 3)
    assert mel_rvq.decode(codes).shape == (n_frames * 160,)


def test_two_fits_have_the_same_bits(mel_rvq, speech):
    again = MelRvqCodec.fit(mel_rvq.config, lambda: (speech(3.0, seed) for seed in range(15)), seed=0)
    assert torch.equal(again.mean, mel_rvq.mean)
    assert torch.equal(again.quantiser.codebooks, mel_rvq.quantiser.codebooks)


def test_fit_hears_the_whole_corpus(mel_rvq, speech):
    """Frames of the last waveform alone must reach the sample, though the first ones would fill it."""
    quiet = [torch.full((8000 * 40,), 1e-9) for _ in range(3)]
    codec = MelRvqCodec.fit(mel_rvq.config, [*quiet, speech(40.0, seed=5)], seed=0)
    assert len(codec.encode(speech(2.0, seed=5))[:, 0].unique()) > 8


def test_too_little_audio_says_so(mel_rvq):
    with pytest.raises(ValueError, match=r"codec\.codebook_size=32"):
        MelRvqCodec.fit(mel_rvq.config, [torch.randn(800)], seed=0)


def test_stream_gives_the_same_samples_however_the_codes_arrive(mel_rvq, speech):
    codes = mel_rvq.encode(speech(1.5, seed=103))
    whole = mel_rvq.stream()
    at_once = torch.cat([whole.push(codes), whole.finish()])
    single = mel_rvq.stream()
    one_by_one = torch.cat([single.push(frame[None]) for frame in codes] + [single.finish()])
    assert torch.equal(at_once, one_by_one)
    assert len(at_once) == len(codes) * 160


def test_stream_sounds_like_offline(mel_rvq, speech, convergence, log_distance):
    audio = normalise_loudness(speech(3.0, seed=104), -23.0)
    codes = mel_rvq.encode(audio)
    stream = mel_rvq.stream()
    online, offline = torch.cat([stream.push(codes), stream.finish()]), mel_rvq.decode(codes)
    assert convergence(audio, online) < convergence(audio, offline) + 0.05
    assert log_distance(audio, online) < log_distance(audio, offline) + 0.5


def test_a_stream_measures_as_offline_decoding_does_and_has_no_clicks_of_its_own(mel_rvq, speech):
    utterances = [mel_rvq.encode(normalise_loudness(speech(4.0, seed), -23.0)) for seed in range(200, 208)]
    offline = [mel_rvq.decode(codes).numpy() for codes in utterances]
    streamed = []
    for codes in utterances:
        stream = mel_rvq.stream()
        streamed.append(torch.cat([*(stream.push(frame) for frame in codes.split(1)), stream.finish()]).numpy())
    flatness = [np.median([spectral_flatness(audio, 8000) for audio in body]) for body in (offline, streamed)]
    assert flatness[1] == pytest.approx(flatness[0], rel=0.1)
    reference = FrechetStatistics.from_audio([speech(4.0, seed).numpy() for seed in range(300, 308)], 8000)
    distances = [frechet_distance(FrechetStatistics.from_audio(body, 8000), reference) for body in (offline, streamed)]
    assert distances[1] < 1.1 * distances[0]
    # Where a chunk ends, a sample surprises little more than offline; chunks decoded each by itself click.
    chunk = mel_rvq.config.stream_chunk_frames
    apart = [torch.cat([mel_rvq.decode(part) for part in codes.split(chunk)]).numpy() for codes in utterances]
    surprises = [surprises_at(body, chunk * mel_rvq.config.hop_length) for body in (offline, streamed, apart)]
    for share, factor in ((50, 1.5), (90, 3.0)):
        usual, at_borders, clicks = (np.percentile(body, share) for body in surprises)
        assert at_borders < factor * usual < clicks


def surprises_at(body, period, order=24, reach=320):
    """How far the samples around every `period`-th one miss what those before predict, linearly, beside others near."""
    surprises = []
    for audio in body:
        for border in range(period, len(audio) - reach, period):
            windows = np.lib.stride_tricks.sliding_window_view(audio[border - reach : border + reach], order + 1)
            past, now = windows[:, :-1].astype(np.float64), windows[:, -1].astype(np.float64)
            is_near = np.abs(np.arange(order, 2 * reach) - reach) <= 4
            has_border = np.abs(np.arange(order, 2 * reach) - reach) <= order + 4
            weights = np.linalg.lstsq(past[~has_border], now[~has_border], rcond=None)[0]
            missed = np.abs(now - past @ weights)
            surprises.append(missed[is_near].max() / (np.sqrt(np.mean(missed[~has_border] ** 2)) + 1e-6))
    return np.array(surprises)


def test_stream_waits_for_chunk_and_look_ahead_only(mel_rvq):
    stream = mel_rvq.stream()
    lengths = [len(stream.push(torch.zeros(1, 3, dtype=torch.int64))) for _ in range(25)]
    assert [index for index, length in enumerate(lengths) if length] == [14, 24]
    assert sum(lengths) == 20 * 160


def test_real_speech_survives(mel_rvq, fsdd_root, log_distance):
    """Held-out digits of a speaker, through a codec fitted on others of theirs, stay within 8 dB of themselves."""

    def digits(takes):
        paths = [fsdd_root / "recordings" / f"{digit}_jackson_{take}.wav" for take in takes for digit in range(10)]
        return torch.cat([torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths])

    config = dataclasses.replace(mel_rvq.config, n_codebooks=4, codebook_size=64, fit_frames=2000)
    codec = MelRvqCodec.fit(config, [digits([take]) for take in range(5, 15)], seed=0)
    held_out = normalise_loudness(digits([0]), -23.0)
    codes = codec.encode(held_out)
    stream = codec.stream()
    distances = {
        "offline": log_distance(held_out, codec.decode(codes)),
        "streamed": log_distance(held_out, torch.cat([stream.push(codes), stream.finish()])),
        "shuffled": log_distance(held_out, codec.decode(codes.flip(0))),
    }
    assert distances["offline"] < 8
    assert distances["streamed"] < distances["offline"] + 0.5
    assert distances["shuffled"] > 1.5 * distances["offline"]
