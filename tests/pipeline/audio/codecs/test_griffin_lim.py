import pytest
import torch

from pipeline.audio.codecs.griffin_lim import GriffinLim, GriffinLimStream

SETTINGS = GriffinLim(n_fft=512, hop_length=160, iterations=16, momentum=0.99)


def magnitudes_of(audio):
    """STFT magnitudes [F, 257], frame i centred on sample i * 160, for audio of F * 160 samples."""
    spectra = torch.stft(audio, 512, 160, window=torch.hann_window(512), return_complex=True)
    return spectra.abs().T[: len(audio) // 160]


def streamed(magnitudes, chunk_frames, lookahead_frames, context_frames):
    stream, samples, start = GriffinLimStream(SETTINGS), [], 0
    while start < len(magnitudes):
        last = len(magnitudes) - start < chunk_frames + lookahead_frames
        end = len(magnitudes) if last else start + chunk_frames
        first = max(0, start - context_frames)
        window = magnitudes[first : end if last else end + lookahead_frames]
        samples.append(stream.step(window, start - first, end - start))
        start = end
    return samples


def test_magnitudes_of_speech_give_speech(speech, convergence):
    audio = speech(3.0, seed=0)
    rebuilt = SETTINGS.reconstruct(magnitudes_of(audio))
    assert len(rebuilt) == len(audio)
    assert convergence(audio, rebuilt) < 0.25
    # The bound means something: noise of the same level is far outside it.
    assert convergence(audio, torch.randn(len(audio)) * audio.std()) > 0.8


def test_a_tone_keeps_its_pitch_and_level_to_the_last_sample():
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)
    rebuilt = SETTINGS.reconstruct(magnitudes_of(tone))
    for part in (rebuilt[2000:4000], rebuilt[-2000:]):
        spectrum = torch.fft.rfft(part * torch.hann_window(2000)).abs()
        assert abs(int(spectrum.argmax()) * 4 - 440) <= 4  # bins are 4 Hz wide
        assert float(part.square().mean().sqrt()) == pytest.approx(0.3 / 2**0.5, rel=0.1)


@pytest.mark.parametrize("n_frames", [0, 1, 2, 3, 7])
def test_any_number_of_frames_gives_as_many_hops(n_frames):
    magnitudes = torch.rand(n_frames, 257)
    assert len(SETTINGS.reconstruct(magnitudes)) == n_frames * 160
    assert sum(map(len, streamed(magnitudes, 4, 2, 1))) == n_frames * 160


def test_reconstruction_repeats_and_leaves_the_global_generator_alone():
    magnitudes = torch.rand(10, 257)
    torch.manual_seed(1)
    first = SETTINGS.reconstruct(magnitudes)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    assert torch.equal(first, SETTINGS.reconstruct(magnitudes))


@pytest.mark.parametrize("lookahead_frames", [0, 2, 5])
def test_streamed_speech_is_about_as_good_as_offline(speech, convergence, log_distance, lookahead_frames):
    audio = speech(3.0, seed=0)
    magnitudes = magnitudes_of(audio)
    chunks = streamed(magnitudes, 10, lookahead_frames, SETTINGS.useful_context)
    assert [len(chunk) for chunk in chunks[:-1]] == [1600] * (len(chunks) - 1)
    offline, online = SETTINGS.reconstruct(magnitudes), torch.cat(chunks)
    assert convergence(audio, online) < convergence(audio, offline) + (0.05 if lookahead_frames else 0.15)
    assert log_distance(audio, online) < log_distance(audio, offline) + 1.0


def test_chunks_join_in_phase():
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 8000)
    magnitudes = magnitudes_of(tone)
    joins = torch.arange(1600, 16000, 1600)
    online = torch.cat(streamed(magnitudes, 10, 5, 1))
    separate = torch.cat([SETTINGS.reconstruct(chunk) for chunk in magnitudes.split(10)])
    # A 440 Hz sine of this level steps at most 0.3 * 2 π 440 / 8000 a sample.
    steepest = 0.3 * 2 * torch.pi * 440 / 8000
    assert float(online.diff().abs()[joins - 1].max()) < 1.5 * steepest
    assert float(separate.diff().abs()[joins - 1].max()) > 2 * steepest


def test_frames_before_the_useful_context_change_nothing(speech):
    magnitudes = magnitudes_of(speech(1.0, seed=3))
    assert SETTINGS.useful_context == 1
    needed, plenty = (torch.cat(streamed(magnitudes, 10, 5, context_frames)) for context_frames in (1, 8))
    assert torch.equal(needed, plenty)
