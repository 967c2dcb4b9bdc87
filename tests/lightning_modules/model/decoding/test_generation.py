"""Generation over the cache: however it is cut and batched, the tokens are the same."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.decoding.prefill import prefill
from lightning_modules.model.sampling_configuration import SamplingConfig
from lightning_modules.model.yarn import YarnConfig

RELATIVE = 5e-6
GREEDY = SamplingConfig(temperature=0)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def random_tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


def masks(n_codebooks: int) -> torch.Tensor:
    """Ten tokens of its own for each codebook position."""
    allowed = torch.zeros(n_codebooks, 40, dtype=torch.bool)
    for q in range(n_codebooks):
        allowed[q, 8 + 10 * q : 18 + 10 * q] = True
    return allowed


def sequences(decoder: Decoder, prompt: torch.Tensor, n: int, **options) -> torch.Tensor:
    return torch.stack(list(generate(decoder, prompt, n, GREEDY, **options)), dim=1)


def logits_in_chunks(decoder: Decoder, data, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of random tokens in random chunks with either form of attention, and of all at once."""
    tokens = random_tokens(2, length, seed=data.draw(st.integers(0, 100)))
    cache = LatentCache(decoder.config, batch_size=2, capacity=length)
    pieces, start = [], 0
    with torch.no_grad():
        while start < length:
            n_tokens = data.draw(st.integers(1, min(length - start, 25)))
            absorb = data.draw(st.sampled_from([None, True, False]))
            pieces.append(decoder.extend(tokens[:, start : start + n_tokens], cache, absorb))
            start += n_tokens
        return torch.cat(pieces, dim=1), decoder.next_token_logits(tokens)[0]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunking_and_either_form_of_attention_equals_the_full_forward(build_decoder, data) -> None:
    changes = data.draw(st.sampled_from([{}, {"q_lora_rank": None}, {"kv_lora_rank": 6}, {"qk_nope_head_dim": 24}]))
    length = data.draw(st.integers(1, 40))
    assert relative_error(*logits_in_chunks(build_decoder(**changes), data, length)) < RELATIVE


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunking_equals_the_full_forward_past_one_phase_of_yarn(build_decoder, data) -> None:
    # Ten times the original context: past the first phase (eight times), as 40K tokens are for the published model.
    yarn = YarnConfig(factor=40, original_max_position_embeddings=16)
    decoder = build_decoder(rope_scaling=yarn, max_position_embeddings=640)
    assert relative_error(*logits_in_chunks(decoder, data, length=160)) < RELATIVE


@pytest.mark.parametrize("absorb", [None, False])
def test_positions_that_turn_whole_heads_decode_alike(build_decoder, absorb: bool | None) -> None:
    decoder = build_decoder(qk_rope_head_dim=0)
    tokens = random_tokens(2, 20)
    with torch.no_grad():
        full, _ = decoder.next_token_logits(tokens)
        cache = LatentCache(decoder.config, batch_size=2, capacity=20)
        pieces = [decoder.extend(piece, cache, absorb) for piece in tokens.split([7, 1, 1, 11], dim=1)]
        assert relative_error(torch.cat(pieces, dim=1), full) < RELATIVE
        with pytest.raises(ValueError, match="cannot be absorbed with qk_rope_head_dim 0"):
            decoder.extend(tokens[:, :1], LatentCache(decoder.config, 2, 1), absorb=True)


@pytest.mark.parametrize("n_tokens", [1, 9])
def test_absorbed_attention_equals_expanded(build_decoder, n_tokens: int) -> None:
    decoder = build_decoder()
    prompt, tokens = random_tokens(2, 20), random_tokens(2, n_tokens, seed=1)
    logits = []
    with torch.no_grad():
        for absorb in (True, False):
            cache = LatentCache(decoder.config, batch_size=2, capacity=32)
            decoder.extend(prompt, cache, absorb=False)
            cache.truncate(torch.tensor([20, 11]))
            logits.append(decoder.extend(tokens, cache, absorb))
    assert not torch.equal(*logits), "the two forms are computed differently"
    assert relative_error(*logits) < RELATIVE


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
def test_prefill_in_chunks_leaves_the_same_cache(build_decoder, chunk_size: int | None) -> None:
    decoder = build_decoder()
    prompt, lengths = random_tokens(3, 13), torch.tensor([13, 1, 8])
    cache = LatentCache(decoder.config, batch_size=3, capacity=20)
    logits = prefill(decoder, prompt, cache, chunk_size, lengths)
    assert torch.equal(cache.lengths, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = LatentCache(decoder.config, batch_size=1, capacity=20)
        with torch.no_grad():
            expected = decoder.extend(prompt[row : row + 1, :length], alone)[0, -1]
        assert relative_error(logits[row], expected) < RELATIVE
        torch.testing.assert_close(cache.latent[:, row, :length], alone.latent[:, 0, :length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [[0, 3], [4, 3], [3]])
def test_prompts_of_impossible_lengths_are_refused(build_decoder, lengths: list[int]) -> None:
    decoder = build_decoder()
    cache = LatentCache(decoder.config, batch_size=2, capacity=8)
    with pytest.raises(ValueError, match="prompt_lengths is .* every row needs a length from 1 to 3"):
        prefill(decoder, random_tokens(2, 3), cache, prompt_lengths=torch.tensor(lengths))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        prefill(decoder, random_tokens(2, 3), cache, chunk_size=0)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_prompts_of_different_lengths_continue_as_each_alone(build_decoder, fp8: bool, chunk_size: int | None) -> None:
    decoder = build_decoder()
    allowed = masks(3)
    prompt, lengths = random_tokens(4, 11), torch.tensor([11, 2, 7, 5])
    cache = LatentCache(decoder.config, batch_size=4, capacity=11 + 30, fp8=fp8)
    together = sequences(
        decoder, prompt, 30, allowed=allowed, prompt_lengths=lengths, cache=cache, prefill_chunk_size=chunk_size
    )
    for row, length in enumerate(lengths.tolist()):
        alone = LatentCache(decoder.config, batch_size=1, capacity=11 + 30, fp8=fp8)
        expected = sequences(decoder, prompt[row : row + 1, :length], 30, allowed=allowed, cache=alone)[0]
        assert torch.equal(together[row], expected)
        for step, token in enumerate(together[row].tolist()):
            assert allowed[(length - 1 + step) % 3, token]


def test_a_cache_that_holds_the_beginning_is_continued(build_decoder) -> None:
    decoder = build_decoder()
    allowed, prompt = masks(2), random_tokens(2, 9)
    expected = sequences(decoder, prompt, 12, allowed=allowed)
    cache = LatentCache(decoder.config, batch_size=2, capacity=24)
    prefill(decoder, prompt[:, :4], cache)
    assert torch.equal(sequences(decoder, prompt[:, 4:], 12, allowed=allowed, cache=cache), expected)
    cache.truncate(4)
    lengths = torch.tensor([5, 2])
    continued = sequences(decoder, prompt[:, 4:], 12, allowed=allowed, cache=cache, prompt_lengths=lengths)
    assert torch.equal(continued, sequences(decoder, prompt, 12, allowed=allowed, prompt_lengths=4 + lengths))


def test_rows_end_each_in_its_own_time(build_decoder) -> None:
    decoder = build_decoder()
    prompt, lengths = random_tokens(3, 6), torch.tensor([6, 3, 4])
    free = sequences(decoder, prompt, 40, prompt_lengths=lengths)
    end = int(free[0, 5])
    ended = sequences(decoder, prompt, 40, prompt_lengths=lengths, end_token=end)
    for row, unending in zip(ended.tolist(), free.tolist(), strict=True):
        length = unending.index(end) + 1 if end in unending else len(row)
        assert row[:length] == unending[:length]
        assert set(row[length:]) <= {end}
