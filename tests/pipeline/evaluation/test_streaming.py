"""Speech streamed while it is generated is the speech that is generated offline."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.configuration import MelRvqConfig
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.evaluation import streaming
from pipeline.evaluation.streaming import stream_codes, stream_speech, stream_tokens
from pipeline.evaluation.synthesis import generate_codes
from pipeline.tokens.vocabulary import Special, Vocabulary

N_FRAMES = 14
# The end is not among the five most probable tokens of the test's decoder: utterances last.
SAMPLING = SamplingConfig(temperature=1.0, top_k=5)
VOCABULARY = Vocabulary(n_codebooks=2, codebook_size=16)


@pytest.fixture(scope="module")
def codec() -> MelRvqCodec:
    config = MelRvqConfig(
        sample_rate=8000,
        n_fft=256,
        hop_length=64,
        n_mels=20,
        f_min=0.0,
        f_max=4000.0,
        log_floor=1e-5,
        loudness_db=-20.0,
        n_codebooks=2,
        codebook_size=16,
        fit_frames=200,
        kmeans_iterations=3,
        griffin_lim_iterations=4,
        griffin_lim_momentum=0.9,
        stream_chunk_frames=4,
        stream_lookahead_frames=2,
        stream_context_frames=3,
    )
    noise = 0.1 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    return MelRvqCodec.fit(config, [noise], seed=0)


@pytest.fixture
def decoder(build_decoder) -> Decoder:
    decoder = build_decoder(vocab_size=VOCABULARY.size, initializer_range=0.3)
    with torch.no_grad():
        decoder.lm_head.weight[Special.EOS] = 0
    return decoder


def prompt_of(n_frames: int) -> Tensor:
    return torch.randint(0, 16, (n_frames, 2), generator=torch.Generator().manual_seed(1))


def all_at_once(codec: MelRvqCodec, codes: Tensor) -> Tensor:
    stream = codec.stream()
    return torch.cat((stream.push(codes), stream.finish()))


@pytest.mark.parametrize("prompt_frames", [0, 3, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_streamed_speech_is_the_codecs_stream_of_the_offline_codes(
    decoder: Decoder, codec: MelRvqCodec, prompt_frames: int, seed: int
) -> None:
    prompt = prompt_of(prompt_frames)
    (codes,) = generate_codes(decoder, VOCABULARY, [prompt], N_FRAMES, SAMPLING, seed, batch_size=1)
    assert torch.equal(codes[:prompt_frames], prompt)
    tokens = list(stream_tokens(decoder, VOCABULARY, prompt, N_FRAMES, SAMPLING, seed))
    assert torch.equal(VOCABULARY.tokens_to_codes(torch.tensor(tokens)), codes[prompt_frames:])
    chunks = list(stream_speech(decoder, codec, VOCABULARY, prompt, N_FRAMES, SAMPLING, seed))
    assert len(chunks) > 1
    assert all(chunk.dtype == np.float32 and chunk.ndim == 1 and len(chunk) for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), all_at_once(codec, codes).numpy())


def test_an_utterance_that_ends_early_is_streamed_to_its_end(decoder: Decoder, codec: MelRvqCodec) -> None:
    sampling, lengths = SamplingConfig(temperature=3.0), set()
    for seed in range(6):
        (codes,) = generate_codes(decoder, VOCABULARY, [prompt_of(1)], N_FRAMES, sampling, seed, batch_size=1)
        chunks = list(stream_speech(decoder, codec, VOCABULARY, prompt_of(1), N_FRAMES, sampling, seed))
        np.testing.assert_array_equal(np.concatenate(chunks), all_at_once(codec, codes).numpy())
        lengths.add(len(codes))
    assert min(lengths) < N_FRAMES


def test_the_first_audio_comes_before_the_last_token(decoder: Decoder, codec: MelRvqCodec, monkeypatch) -> None:
    drawn = []
    generate = streaming.generate

    def counted(*values) -> Iterator[Tensor]:
        for token in generate(*values):
            drawn.append(token)
            yield token

    monkeypatch.setattr(streaming, "generate", counted)
    chunks = stream_speech(decoder, codec, VOCABULARY, prompt_of(0), 40, SAMPLING, seed=0)
    next(chunks)
    # A chunk of four frames and two to look ahead, of two tokens each: all that the codec waits for.
    assert len(drawn) == 12


def test_speculation_streams_the_same_greedy_speech(decoder: Decoder, codec: MelRvqCodec) -> None:
    greedy = SamplingConfig(temperature=0)
    plain, drafted = (
        np.concatenate(
            list(stream_speech(decoder, codec, VOCABULARY, prompt_of(2), N_FRAMES, greedy, 0, speculative=speculative))
        )
        for speculative in (False, True)
    )
    np.testing.assert_array_equal(plain, drafted)


def test_codes_end_with_the_utterance() -> None:
    codes = prompt_of(3)
    tokens = VOCABULARY.codes_to_tokens(codes).tolist()
    frames = list(stream_codes(VOCABULARY, iter([*tokens, Special.EOS, *tokens])))
    assert [tuple(frame.shape) for frame in frames] == [(1, 2)] * 3
    assert torch.equal(torch.cat(frames), codes)
    assert not list(stream_codes(VOCABULARY, iter([tokens[0]])))


def test_prompts_of_different_lengths_are_continued_together(decoder: Decoder) -> None:
    greedy = SamplingConfig(temperature=0)
    prompts = [prompt_of(n) for n in (0, 5, 2, N_FRAMES, N_FRAMES + 3)]
    together = generate_codes(decoder, VOCABULARY, prompts, N_FRAMES, greedy, seed=0, batch_size=5)
    for prompt, codes in zip(prompts, together, strict=True):
        (alone,) = generate_codes(decoder, VOCABULARY, [prompt], N_FRAMES, greedy, seed=0, batch_size=1)
        assert torch.equal(codes, alone)
        assert torch.equal(codes[: len(prompt)], prompt[:N_FRAMES])
        assert len(codes) == N_FRAMES
