"""Speculative decoding: the drafts are the modules' own, and what comes out is what the decoder alone would say."""

import itertools
from collections import Counter

import pytest
import torch

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.generation import generate, generate_speculatively
from lightning_modules.model.decoding.sampling import allow, token_probabilities
from lightning_modules.model.decoding.speculation import Acceptance, Speculation, verify
from lightning_modules.model.sampling_configuration import SamplingConfig

GREEDY = SamplingConfig(temperature=0)


def masks(n_codebooks: int, width: int, vocab_size: int = 40) -> torch.Tensor:
    """`width` tokens of its own for each codebook position."""
    allowed = torch.zeros(n_codebooks, vocab_size, dtype=torch.bool)
    for q in range(n_codebooks):
        allowed[q, 3 + width * q : 3 + width * (q + 1)] = True
    return allowed


def chi_square(counts: Counter, expected: dict) -> float:
    return sum((counts[cell] - n) ** 2 / n for cell, n in expected.items())


def agreeing_decoder(build_decoder, depth: int) -> tuple[Decoder, torch.Tensor]:
    """A decoder whose next token is a permutation of the last one, as all of its prediction modules know."""
    decoder = build_decoder(vocab_size=24, num_nextn_predict_layers=depth)
    permutation = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.zero_()
            if "norm" in name:
                parameter.fill_(1.0)
        embedding = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1))).Q[:24]
        decoder.embed_tokens.weight.copy_(embedding)
        decoder.lm_head.weight[permutation] = embedding
        for module in decoder.mtp:
            module.eh_proj.weight.copy_(torch.cat((torch.eye(32), torch.zeros(32, 32)), dim=1))
    return decoder, permutation


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("prompt_length", [1, 2, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_greedy_tokens_are_those_of_plain_generation(
    build_decoder, depth: int, prompt_length: int, masked: bool
) -> None:
    decoder = build_decoder(num_nextn_predict_layers=depth)
    allowed = masks(3, 2) if masked else None
    prompt = torch.randint(0, 40, (1, prompt_length), generator=torch.Generator().manual_seed(0))
    acceptance = Acceptance()
    plain = list(generate(decoder, prompt, 80, GREEDY, allowed))
    drafted = list(generate_speculatively(decoder, prompt, 80, GREEDY, allowed, acceptance=acceptance))
    assert torch.equal(torch.cat(drafted), torch.cat(plain))
    if masked:
        assert 0 < acceptance.rate < 1, "drafts are sometimes right and sometimes wrong, so that both ways are taken"


@pytest.mark.parametrize("temperature", [0.0, 2.5])
@pytest.mark.parametrize("depth", [1, 3])
def test_drafts_are_what_the_modules_predict_in_the_full_forward(
    build_decoder, monkeypatch, temperature: float, depth: int
) -> None:
    decoder = build_decoder(num_nextn_predict_layers=depth)
    sampling, allowed = SamplingConfig(temperature), masks(2, 5)
    rounds = []
    draft = Speculation._draft

    def recorded(self, state, longest):
        logits, length = draft(self, state, longest), int(state.lengths)
        drafted = state.tokens[0, length : length + depth].clone()
        rounds.append((state.tokens[0, :length].clone(), drafted, token_probabilities(logits, sampling)[0]))
        return logits

    monkeypatch.setattr(Speculation, "_draft", recorded)
    acceptance = Acceptance()
    generator = torch.Generator().manual_seed(0)
    prompt = torch.tensor([[1, 4, 9]])
    list(generate_speculatively(decoder, prompt, 40, sampling, allowed, generator=generator, acceptance=acceptance))
    assert 0 < acceptance.n_accepted < acceptance.n_drafted
    for tokens, drafted, distributions in rounds:
        with torch.no_grad():
            output = decoder(torch.cat((tokens, drafted[:-1]))[None])
        for k, logits in enumerate(output.ahead_logits, start=1):
            index = torch.tensor(len(tokens) + k - 1)
            expected = token_probabilities(allow(logits[:, -1], allowed, index), sampling)
            torch.testing.assert_close(distributions[k - 1], expected[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("depth", [1, 2])
def test_every_draft_of_modules_that_agree_is_accepted(build_decoder, temperature: float, depth: int) -> None:
    decoder, permutation = agreeing_decoder(build_decoder, depth)
    acceptance = Acceptance()
    sampling, generator = SamplingConfig(temperature), torch.Generator().manual_seed(0)
    prompt = torch.tensor([[5, 3]])
    tokens = list(generate_speculatively(decoder, prompt, 31, sampling, generator=generator, acceptance=acceptance))
    assert len(tokens) == 31
    assert acceptance.rate == 1
    assert acceptance.n_rounds == -(-31 // (depth + 1))
    assert acceptance.tokens_per_round == depth + 1
    if temperature == 0:
        expected = [3]
        for _ in range(31):
            expected.append(int(permutation[expected[-1]]))
        assert torch.cat(tokens).tolist() == expected[1:]


def test_what_follows_a_refused_draft_is_refused_too(build_decoder) -> None:
    decoder, _ = agreeing_decoder(build_decoder, depth=3)
    with torch.no_grad():
        decoder.mtp[1].eh_proj.weight.neg_()
    acceptance = Acceptance()
    prompt = torch.tensor([[5, 3]])
    tokens = list(generate_speculatively(decoder, prompt, 21, GREEDY, acceptance=acceptance))
    assert torch.equal(torch.cat(tokens), torch.cat(list(generate(decoder, prompt, 21, GREEDY))))
    assert acceptance.n_rounds == 11
    assert acceptance.n_drafted == 33
    assert acceptance.n_accepted == 11


def test_generation_ends_with_the_end_token(build_decoder) -> None:
    decoder, permutation = agreeing_decoder(build_decoder, depth=3)
    prompt = torch.tensor([[3]])
    tokens = torch.cat(list(generate(decoder, prompt, 9, GREEDY)))
    for n in range(1, 9):
        end = int(tokens[n - 1])
        first = tokens.tolist().index(end) + 1
        ended = torch.cat(list(generate_speculatively(decoder, prompt, 30, GREEDY, end_token=end)))
        assert torch.equal(ended, tokens[:first])
        assert len(list(generate_speculatively(decoder, prompt, n, GREEDY))) == n
    assert not list(generate_speculatively(decoder, prompt, 0, GREEDY))


def test_verification_preserves_the_distribution() -> None:
    draft = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.45, 0.45]])
    target = torch.tensor([[0.3, 0.1, 0.6], [0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    n, generator = 40_000, torch.Generator().manual_seed(0)
    drafted = torch.multinomial(draft, n, replacement=True, generator=generator).T
    chances = torch.rand(n, 5, generator=generator).split((2, 3), dim=1)
    tokens, n_accepted = verify(drafted, draft.expand(n, -1, -1), target.expand(n, -1, -1), *chances)
    # Tokens that this round did not reach are drawn from the target, as a later round would.
    later = torch.multinomial(target, n, replacement=True, generator=generator).T
    tokens = torch.where(torch.arange(3) <= n_accepted[:, None], tokens, later)
    counts: Counter = Counter(map(tuple, tokens.tolist()))
    cells = itertools.product(range(3), repeat=3)
    expected = {(a, b, c): n * float(target[0, a] * target[1, b] * target[2, c]) for a, b, c in cells}
    impossible = [cell for cell, mean in expected.items() if mean == 0]
    assert not any(counts[cell] for cell in impossible)
    assert chi_square(counts, {cell: mean for cell, mean in expected.items() if mean}) < 40.8  # 99.9 %, 17 degrees
    # A draft is accepted as often as the two distributions overlap.
    overlap = [float(torch.minimum(p, q).sum()) for p, q in zip(target, draft, strict=False)]
    assert abs(float((n_accepted > 0).float().mean()) - overlap[0]) < 0.01
    assert abs(float((n_accepted > 1).float().mean()) - overlap[0] * overlap[1]) < 0.01


def test_equal_distributions_up_to_rounding_can_be_sampled() -> None:
    # One unit in the last place too many is refused about once in 2²⁴ times; no other token is in excess then.
    target = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])
    draft = target[:, :1].clone()
    draft[0, 0, 0] = torch.nextafter(draft[0, 0, 0], torch.tensor(1.0))
    tokens, n_accepted = verify(torch.tensor([[0]]), draft, target, torch.ones(1, 1), torch.full((1, 2), 0.7))
    assert n_accepted.tolist() == [0]
    assert tokens[:, 0].tolist() == [1]


@pytest.mark.parametrize("sampling", [GREEDY, SamplingConfig(2.5), SamplingConfig(1.5, top_k=5)])
@pytest.mark.parametrize("depth", [1, 2])
def test_rows_that_accept_different_numbers_say_what_they_would_alone(build_decoder, sampling, depth: int) -> None:
    decoder, allowed = build_decoder(num_nextn_predict_layers=depth), masks(2, 5)
    sizes = ((1, 9), (12, 30), (7, 1), (4, 25), (2, 40))
    asked = [(torch.arange(3, 3 + length), n, 100 + length) for length, n in sizes]

    def heard(engine: Engine, prompts: list) -> list[list[int]]:
        waiting, said, rows = list(prompts), {}, {}
        while waiting or len(engine.free_rows) < 2:
            if waiting and engine.free_rows:
                prompt, n, seed = waiting.pop(0)
                rows[engine.join([prompt], [n], [seed])[0]] = seed
            engine.step()
            for row, tokens, _ in engine.read(wait=True):
                said.setdefault(rows[row], []).extend(tokens)
        return [said[seed] for _, _, seed in prompts]

    def engine() -> Engine:
        return Engine(decoder, 2, 60, sampling, allowed, end_token=4, acceptance=Acceptance())

    assert heard(engine(), asked) == [heard(engine(), [one])[0] for one in asked]


def test_rows_of_different_lengths_are_yielded_side_by_side(build_decoder) -> None:
    decoder, lengths = build_decoder(), torch.tensor([6, 3, 1])
    prompt = torch.randint(0, 40, (3, 6), generator=torch.Generator().manual_seed(0))
    plain = generate(decoder, prompt, 40, GREEDY, end_token=7, prompt_lengths=lengths)
    drafted = generate_speculatively(decoder, prompt, 40, GREEDY, end_token=7, prompt_lengths=lengths)
    assert torch.equal(torch.stack(list(plain)), torch.stack(list(drafted)))


def test_sampled_tokens_are_distributed_as_the_decoder_says(build_decoder) -> None:
    decoder = build_decoder(
        vocab_size=16, num_hidden_layers=1, first_k_dense_replace=1, num_nextn_predict_layers=2, initializer_range=0.5
    )
    sampling, allowed, prompt = SamplingConfig(temperature=2.0, top_k=3), masks(2, 4, 16), torch.tensor([[1, 4]])
    probability: dict = {}
    for cell in itertools.product(*(torch.nonzero(allowed[q])[:, 0].tolist() for q in (1, 0, 1))):
        tokens = torch.cat((prompt, torch.tensor([cell])), dim=1)
        with torch.no_grad():
            logits = decoder.next_token_logits(tokens)[0][0, 1:4]
        distributions = token_probabilities(allow(logits, allowed, torch.arange(2, 5)), sampling)
        probability[cell] = float(distributions.gather(1, torch.tensor(cell)[:, None]).prod())
    n = 4000
    generator, acceptance = torch.Generator().manual_seed(1), Acceptance()
    rows = prompt.expand(n, -1)
    steps = generate_speculatively(decoder, rows, 3, sampling, allowed, generator=generator, acceptance=acceptance)
    counts: Counter = Counter(map(tuple, torch.stack(list(steps), dim=1).tolist()))
    assert 0.1 < acceptance.rate < 0.9
    assert sum(counts[cell] for cell, p in probability.items() if p > 0) == n
    likely = {cell: n * p for cell, p in probability.items() if n * p >= 5}
    rest = {cell: n * p for cell, p in probability.items() if 0 < n * p < 5}
    likely["rest"] = sum(rest.values()) + 1e-9
    counts["rest"] = sum(counts[cell] for cell in rest)
    limit = torch.distributions.Chi2(torch.tensor(float(len(likely) - 1)))
    assert float(limit.cdf(torch.tensor(chi_square(counts, likely)))) < 0.999


@pytest.mark.parametrize("fp8_cache", [False, True])
def test_speculation_keeps_its_latents_as_it_is_told(build_decoder, monkeypatch, fp8_cache: bool) -> None:
    decoder, prompt = build_decoder(), torch.tensor([[1, 4, 9]])
    caches = []
    extend = LatentCache.append

    def recorded(self, *values):
        caches.append(self)
        return extend(self, *values)

    plain = LatentCache(decoder.config, batch_size=1, capacity=60, fp8=fp8_cache)
    expected = torch.cat(list(generate(decoder, prompt, 50, GREEDY, cache=plain)))
    monkeypatch.setattr(LatentCache, "append", recorded)
    drawn = torch.cat(list(generate_speculatively(decoder, prompt, 50, GREEDY, fp8_cache=fp8_cache)))
    assert torch.equal(drawn, expected)
    assert {cache.latent_scale is not None for cache in caches} == {fp8_cache}
    assert {len(cache.latent) for cache in caches} == {1, 3}


def test_what_cannot_be_speculated_is_refused(build_decoder) -> None:
    with pytest.raises(ValueError, match="set model.num_nextn_predict_layers"):
        list(generate_speculatively(build_decoder(num_nextn_predict_layers=0), torch.ones(1, 1).long(), 3, GREEDY))
    with pytest.raises(ValueError, match="every row needs a length from 1 to 0"):
        list(generate_speculatively(build_decoder(), torch.ones(1, 0).long(), 3, GREEDY))
    with pytest.raises(ValueError, match="takes neither a context nor a cache"):
        Engine(build_decoder(), 1, 9, GREEDY, context=4, acceptance=Acceptance())
