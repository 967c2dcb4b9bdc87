"""The decoder: what its tokens see, and that every way of running it agrees."""

import pytest
import torch

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.decoding.sampling import token_probabilities
from lightning_modules.model.sampling_configuration import SamplingConfig

RELATIVE = 5e-6


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None}, {"kv_lora_rank": 6}, {"n_group": 1, "topk_group": 1}])
@pytest.mark.parametrize("chunks", [[24], [1] * 24, [10, 1, 1, 5, 7], [3, 21]])
def test_incremental_decoding_equals_the_full_forward(build_decoder, changes: dict, chunks: list[int]) -> None:
    decoder = build_decoder(**changes)
    tokens = torch.randint(0, 40, (3, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full, _ = decoder.next_token_logits(tokens)
        cache = LatentCache(decoder.config, batch_size=3, capacity=24)
        pieces = [decoder.extend(piece, cache) for piece in tokens.split(chunks, dim=1)]
    assert relative_error(torch.cat(pieces, dim=1), full) < RELATIVE


def test_rows_of_different_lengths_decode_as_if_alone(build_decoder) -> None:
    decoder = build_decoder()
    tokens = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 4])
    with torch.no_grad():
        cache = LatentCache(decoder.config, batch_size=2, capacity=16)
        decoder.extend(tokens[:, :9], cache)
        cache.truncate(lengths)
        step = decoder.extend(tokens[:, 10:11], cache)
        for row, length in enumerate(lengths):
            alone = torch.cat((tokens[row, :length], tokens[row, 10:11]))[None]
            assert relative_error(step[row, 0], decoder.next_token_logits(alone)[0][0, -1]) < RELATIVE


def test_a_full_cache_says_so(build_decoder) -> None:
    decoder = build_decoder()
    cache = LatentCache(decoder.config, batch_size=1, capacity=4)
    with pytest.raises(ValueError, match="holds 4 tokens, 5 are needed"):
        decoder.extend(torch.zeros(1, 5, dtype=torch.long), cache)


def test_packed_documents_do_not_see_each_other(build_decoder) -> None:
    decoder = build_decoder()
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randint(0, 40, (1, 9), generator=generator), torch.randint(0, 40, (1, 7), generator=generator)
    packed = torch.cat((first, second, second[:, :1]), dim=1)  # one token more for multi-token prediction to read
    ids = torch.tensor([[5] * 9 + [2] * 7])
    with torch.no_grad():
        output = decoder(packed, ids)
        assert relative_error(output.logits[:, :9], decoder.next_token_logits(first)[0]) < RELATIVE
        assert relative_error(output.logits[:, 9:], decoder.next_token_logits(second)[0]) < RELATIVE
        across = decoder(packed).logits
    assert relative_error(across[:, 9:], output.logits[:, 9:]) > 0.01


def test_predictions_depend_on_the_past_alone(build_decoder) -> None:
    decoder = build_decoder(num_nextn_predict_layers=2)
    tokens = torch.randint(0, 40, (1, 20), generator=torch.Generator().manual_seed(3))
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 40
    with torch.no_grad():
        before, after = decoder(tokens), decoder(changed)
    assert relative_error(after.logits[:, :12], before.logits[:, :12]) < RELATIVE
    # Depth k reads k tokens further: it sees the change k positions earlier.
    for depth in (1, 2):
        old, new = before.ahead_logits[depth - 1], after.ahead_logits[depth - 1]
        assert relative_error(new[:, : 12 - depth], old[:, : 12 - depth]) < RELATIVE
        assert relative_error(new[:, 12 - depth], old[:, 12 - depth]) > 0.01


def test_greedy_generation_follows_the_full_forward(build_decoder) -> None:
    decoder = build_decoder()
    tokens = torch.tensor([[1, 7, 3], [1, 20, 11]])
    drawn = torch.stack(list(generate(decoder, tokens, 10, SamplingConfig(temperature=0))), dim=1)
    for _ in range(10):
        with torch.no_grad():
            chosen = decoder.next_token_logits(tokens)[0][:, -1].argmax(dim=-1)
        tokens = torch.cat((tokens, chosen[:, None]), dim=1)
    assert torch.equal(drawn, tokens[:, 3:])


def test_generation_keeps_to_the_allowed_tokens_and_ends(build_decoder) -> None:
    decoder = build_decoder()
    allowed = torch.zeros(2, 40, dtype=torch.bool)
    allowed[0, 10:20] = True
    allowed[0, 2] = True  # the end
    allowed[1, 20:30] = True
    prompt = torch.ones(64, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    steps = list(generate(decoder, prompt, 200, SamplingConfig(1.5), allowed, end_token=2, generator=generator))
    tokens = torch.stack(steps, dim=1)
    assert tokens.shape[1] < 200, "all rows ended, so generation did"
    for row in tokens.tolist():
        end = row.index(2)
        assert end % 2 == 0
        assert set(row[end:]) == {2}
        assert all(10 <= token < 20 for token in row[:end:2])
        assert all(20 <= token < 30 for token in row[1:end:2])


def test_sampling_keeps_the_most_probable_tokens() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    torch.testing.assert_close(
        token_probabilities(logits, SamplingConfig(top_k=2)), torch.tensor([[2 / 3, 1 / 3, 0.0, 0.0]])
    )
    torch.testing.assert_close(
        token_probabilities(logits, SamplingConfig(top_p=0.8)), torch.tensor([[5 / 9, 2.5 / 9, 1.5 / 9, 0.0]])
    )
    squared = torch.tensor([[0.25, 0.0625, 0.0225, 0.01]])
    torch.testing.assert_close(token_probabilities(logits, SamplingConfig(temperature=0.5)), squared / squared.sum())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qk_rope_head_dim": 5}, "qk_rope_head_dim is 5; .* make it even"),
        ({"n_group": 3}, "n_routed_experts .* does not divide"),
        ({"num_experts_per_tok": 5}, "the 2 kept groups hold 4 experts"),
        ({"topk_group": 5}, "topk_group is 5"),
        ({"moe_intermediate_size": 20}, "moe_intermediate_size is 20; .* multiple of 8"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"first_k_dense_replace": 4}, "first_k_dense_replace is 4"),
    ],
)
def test_an_impossible_architecture_is_refused(build_decoder, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_decoder(**changes)


def test_documents_one_by_one_are_what_a_mask_makes_of_them(tiny_config: DecoderConfig) -> None:
    torch.manual_seed(0)
    decoder = Decoder(tiny_config)
    decoder.initialize_weights(1)
    depth = tiny_config.num_nextn_predict_layers
    tokens = torch.randint(0, tiny_config.vocab_size, (3, 24 + depth))
    ids = torch.tensor([[0] * 9 + [1] * 15, [0] * 24, [0] * 5 + [1] + [2] * 10 + [-1] * 8])
    positions = torch.arange(24).repeat(3, 1)
    real = ids >= 0
    gradients, outputs = [], []
    for one_by_one in (False, True):
        decoder.attends_by_document = one_by_one
        output = decoder(tokens, ids, positions)
        outputs.append(torch.stack([output.logits, *output.ahead_logits])[:, real])
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), list(decoder.parameters()), allow_unused=True))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    for masked, direct in zip(*gradients, strict=True):
        assert (masked is None) == (direct is None)
        if masked is not None:
            torch.testing.assert_close(direct, masked, rtol=1e-3, atol=1e-4)


def test_only_distances_between_positions_count(tiny_config: DecoderConfig) -> None:
    """A piece of a long document at its true positions is predicted as it would be at the document's beginning."""
    decoder = Decoder(tiny_config)
    decoder.initialize_weights(1)
    depth = tiny_config.num_nextn_predict_layers
    tokens, ids = torch.randint(0, tiny_config.vocab_size, (1, 16 + depth)), torch.zeros(1, 16, dtype=torch.long)
    at_start, further_on, spread = (decoder(tokens, ids, torch.arange(16)[None] * step + first).logits
                                    for first, step in ((0, 1), (700, 1), (0, 2)))  # fmt: skip
    torch.testing.assert_close(further_on, at_start, rtol=1e-3, atol=1e-4)
    assert (spread - at_start).abs().max() > 0.01
