import pytest
import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.evaluation.synthesis import generate_codes
from pipeline.tokens.vocabulary import Special, Vocabulary
from tests.speaking_export import VOCABULARY, talkative_decoder

GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture
def decoder(build_decoder) -> Decoder:
    """Ends some of its utterances early."""
    decoder = build_decoder()
    with torch.no_grad():
        decoder.lm_head.weight[Special.EOS] *= 1.5
    return decoder


def prompts(n: int, n_frames: int) -> list[Tensor]:
    codes = torch.randint(16, (n, n_frames, 2), generator=torch.Generator().manual_seed(1))
    return list(codes)


def greedy_without_cache(decoder: Decoder, vocabulary: Vocabulary, prompt: Tensor, n_frames: int) -> Tensor:
    """Codes of one utterance, each token from a whole forward pass over all before it."""
    tokens = torch.cat((torch.tensor([Special.BOS]), vocabulary.codes_to_tokens(prompt)))
    with torch.no_grad():
        while len(tokens) <= n_frames * 2:
            scores = decoder.next_token_logits(tokens[None])[0][0, -1]
            q = (len(tokens) - 1) % 2
            legal = [*range(8 + 16 * q, 24 + 16 * q), *([int(Special.EOS)] if q == 0 else [])]
            token = max(legal, key=lambda candidate: float(scores[candidate]))
            if token == Special.EOS:
                break
            tokens = torch.cat((tokens, torch.tensor([token])))
    return vocabulary.tokens_to_codes(tokens)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("prompt_frames", [0, 3])
def test_greedy_generation_is_the_most_probable_token_each_time(
    decoder: Decoder, vocabulary: Vocabulary, batch_size: int, prompt_frames: int
) -> None:
    starts = prompts(8, prompt_frames)
    generated = generate_codes(decoder, vocabulary, starts, 12, GREEDY, 0, batch_size)
    expected = [greedy_without_cache(decoder, vocabulary, start, 12) for start in starts]
    assert [codes.tolist() for codes in generated] == [codes.tolist() for codes in expected]
    if prompt_frames:
        lengths = {len(codes) for codes in generated}
        assert max(lengths) == 12 > min(lengths)


def test_seeds_repeat_and_differ(decoder: Decoder, vocabulary: Vocabulary) -> None:
    def generate(seed: int) -> list[list[list[int]]]:
        generated = generate_codes(decoder, vocabulary, prompts(4, 2), 10, SamplingConfig(1.0), seed, 2)
        return [codes.tolist() for codes in generated]

    assert generate(5) == generate(5)
    assert generate(5) != generate(6)


def test_equal_prompts_are_not_continued_equally(decoder: Decoder, vocabulary: Vocabulary) -> None:
    """Across batches too: the seed is set once."""
    starts = prompts(1, 0) * 6
    generated = generate_codes(decoder, vocabulary, starts, 10, SamplingConfig(2.0), 0, batch_size=1)
    assert len({str(codes.tolist()) for codes in generated}) > 3


def test_prompts_are_kept_and_lengths_are_bounded(decoder: Decoder, vocabulary: Vocabulary) -> None:
    starts = prompts(7, 4)
    generated = generate_codes(decoder, vocabulary, starts, 9, SamplingConfig(1.0), 0, 3)
    assert len(generated) == 7
    for start, codes in zip(starts, generated, strict=True):
        assert torch.equal(codes[:4], start)
        assert 4 <= len(codes) <= 9
        assert codes.min() >= 0
        assert codes.max() < 16


def test_a_prompt_of_full_length_comes_back_as_it_is(decoder: Decoder, vocabulary: Vocabulary) -> None:
    (codes,) = generate_codes(decoder, vocabulary, prompts(1, 5), 5, GREEDY, 0, 1)
    assert torch.equal(codes, prompts(1, 5)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_speaks_as_a_cpu_does(decoder: Decoder, vocabulary: Vocabulary) -> None:
    expected = generate_codes(decoder, vocabulary, prompts(3, 2), 12, GREEDY, 0, 3)
    generated = generate_codes(decoder.to("cuda"), vocabulary, prompts(3, 2), 12, GREEDY, 0, 3)
    assert [codes.tolist() for codes in generated] == [codes.tolist() for codes in expected]


def test_prompts_of_different_lengths_are_continued_together() -> None:
    decoder, n_frames = talkative_decoder(), 14
    starts = [prompts(1, n)[0] for n in (0, 5, 2, n_frames, n_frames + 3)]
    together = generate_codes(decoder, VOCABULARY, starts, n_frames, GREEDY, seed=0, batch_size=5)
    for prompt, codes in zip(starts, together, strict=True):
        (alone,) = generate_codes(decoder, VOCABULARY, [prompt], n_frames, GREEDY, seed=0, batch_size=1)
        assert torch.equal(codes, alone)
        assert torch.equal(codes[: len(prompt)], prompt[:n_frames])
        assert len(codes) == n_frames
