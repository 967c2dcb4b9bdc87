"""Speech streamed while it is generated is the speech that is generated offline."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.evaluation.synthesis import generate_codes
from pipeline.streaming.export import SpeakingExport
from pipeline.streaming.speech import LEAD_SECONDS, stream_audio, stream_codes, stream_tokens
from pipeline.tokens.vocabulary import Special
from tests.speaking_export import VOCABULARY

N_FRAMES = 14
# The end is not among the five most probable tokens of the tests' decoder: utterances last.
SAMPLING = SamplingConfig(temperature=1.0, top_k=5)
GREEDY = SamplingConfig(temperature=0)


def prompt_of(n_frames: int) -> Tensor:
    return torch.randint(0, 16, (n_frames, 2), generator=torch.Generator().manual_seed(1))


def all_at_once(codec: MelRvqCodec, codes: Tensor) -> np.ndarray:
    stream = codec.stream()
    return torch.cat((stream.push(codes), stream.finish())).numpy()


def offline(export: SpeakingExport, prompt: Tensor, n_new: int, sampling: SamplingConfig, seed: int = 0) -> Tensor:
    """The codes [F, Q] that `evaluate` would make of a prompt, which they begin with."""
    n_frames = len(prompt) + n_new
    (codes,) = generate_codes(
        export.decoder, VOCABULARY, [prompt], n_frames, sampling, seed, batch_size=1, context=export.context
    )
    return codes


def streamed(export: SpeakingExport, prompt: Tensor, n_new: int, sampling: SamplingConfig, **others) -> list[int]:
    return list(stream_tokens(export, prompt, n_new, sampling, **{"seed": 0} | others))


@pytest.mark.parametrize("prompt_frames", [0, 3, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_streamed_speech_is_the_codecs_stream_of_the_offline_codes(
    export: SpeakingExport, prompt_frames: int, seed: int
) -> None:
    prompt = prompt_of(prompt_frames)
    codes = offline(export, prompt, N_FRAMES, SAMPLING, seed)
    tokens = streamed(export, prompt, N_FRAMES, SAMPLING, seed=seed)
    assert torch.equal(VOCABULARY.tokens_to_codes(torch.tensor(tokens)), codes[prompt_frames:])
    chunks = list(stream_audio(export.codec, prompt, stream_codes(VOCABULARY, tokens), echo=True))
    assert len(chunks) > 1
    assert all(chunk.dtype == np.float32 and chunk.ndim == 1 and len(chunk) for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), all_at_once(export.codec, codes))


def test_beyond_the_context_streamed_codes_are_those_of_sliding_windows_offline(export: SpeakingExport) -> None:
    short = replace(export, context=24)
    codes = offline(short, prompt_of(5), 40, SAMPLING)
    assert 1 + codes.numel() > 3 * short.context
    tokens = streamed(short, prompt_of(5), 40, SAMPLING)
    assert torch.equal(VOCABULARY.tokens_to_codes(torch.tensor(tokens)), codes[5:])
    with pytest.raises(ValueError, match="drafts reach no further than the 24 tokens .* lower seconds to 0.05"):
        streamed(short, prompt_of(5), 40, SAMPLING, speculative=True)


def test_an_utterance_that_ends_early_is_streamed_to_its_end(export: SpeakingExport) -> None:
    sampling, lengths = SamplingConfig(temperature=3.0), set()
    for seed in range(6):
        codes = offline(export, prompt_of(1), N_FRAMES, sampling, seed)
        tokens = streamed(export, prompt_of(1), N_FRAMES, sampling, seed=seed)
        chunks = list(stream_audio(export.codec, prompt_of(1), stream_codes(VOCABULARY, tokens), echo=True))
        np.testing.assert_array_equal(np.concatenate(chunks), all_at_once(export.codec, codes))
        lengths.add(len(codes))
    assert min(lengths) < N_FRAMES


def test_the_first_audio_comes_before_the_last_token(codec: MelRvqCodec) -> None:
    pulled = []

    def frames() -> Iterator[Tensor]:
        for frame in prompt_of(40).split(1):
            pulled.append(frame)
            yield frame

    next(stream_audio(codec, prompt_of(0), frames()))
    # A chunk of four frames and two to look ahead: all that the codec waits for.
    assert len(pulled) == 6


@pytest.mark.parametrize("prompt_frames", [0, 3, 100])
def test_without_echo_speech_begins_where_the_prompt_ends(codec: MelRvqCodec, prompt_frames: int) -> None:
    prompt, new = prompt_of(prompt_frames), prompt_of(30)
    (heard, alone) = (np.concatenate(list(stream_audio(codec, p, new.split(1)))) for p in (prompt, prompt_of(0)))
    assert len(heard) == len(alone) == len(new) * codec.config.hop_length
    lead = prompt[-round(LEAD_SECONDS * codec.frame_rate) :] if prompt_frames else prompt
    joined = all_at_once(codec, torch.cat((lead, new)))
    np.testing.assert_array_equal(heard, joined[len(lead) * codec.config.hop_length :])


def test_speculation_streams_the_same_greedy_speech(export: SpeakingExport) -> None:
    plain = streamed(export, prompt_of(2), N_FRAMES, GREEDY)
    assert streamed(export, prompt_of(2), N_FRAMES, GREEDY, speculative=True) == plain


def test_codes_end_with_the_utterance() -> None:
    codes = prompt_of(3)
    tokens = VOCABULARY.codes_to_tokens(codes).tolist()
    frames = list(stream_codes(VOCABULARY, iter([*tokens, Special.EOS, *tokens])))
    assert [tuple(frame.shape) for frame in frames] == [(1, 2)] * 3
    assert torch.equal(torch.cat(frames), codes)
    assert not list(stream_codes(VOCABULARY, iter([tokens[0]])))
