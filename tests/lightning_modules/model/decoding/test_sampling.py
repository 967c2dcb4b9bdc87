"""Sampling, held against the definitions and the implementation in transformers."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_modules.model.decoding.sampling import allow, sample, token_probabilities
from lightning_modules.model.sampling_configuration import SamplingConfig

N_TOKENS = 12


@st.composite
def logits(draw) -> torch.Tensor:
    """Rows of logits, some tokens of which are masked."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    rows = torch.randn(3, N_TOKENS, generator=generator) * draw(st.floats(0.1, 30.0))
    masked = torch.rand(3, N_TOKENS, generator=generator) < draw(st.sampled_from([0.0, 0.5]))
    masked[:, draw(st.integers(0, N_TOKENS - 1))] = False
    return rows.masked_fill(masked, float("-inf"))


configs = st.builds(
    SamplingConfig,
    temperature=st.floats(0.05, 5.0),
    top_k=st.none() | st.integers(1, N_TOKENS + 3),
    top_p=st.none() | st.floats(0.05, 1.0),
)


@settings(deadline=None, max_examples=100)
@given(logits=logits(), config=configs)
def test_what_is_kept_is_a_distribution_over_the_most_probable_tokens(
    logits: torch.Tensor, config: SamplingConfig
) -> None:
    probabilities = token_probabilities(logits, config)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(3))
    tempered = (logits.double() / config.temperature).softmax(dim=-1)
    for row, full in zip(probabilities, tempered, strict=True):
        kept = row > 0
        assert not kept[full == 0].any(), "a masked token is never kept"
        if (~kept).any():
            assert float(full[kept].min()) >= float(full[~kept].max()) * (1 - 1e-5)
        torch.testing.assert_close(row[kept].double(), full[kept] / full[kept].sum(), rtol=1e-4, atol=1e-6)
        if config.top_k is not None:
            assert int(kept.sum()) <= config.top_k
        if config.top_p is not None and config.top_k is None and config.top_p < 1:
            assert float(full[kept].sum()) >= config.top_p - 1e-5
            assert float(full[kept].sum() - full[kept].min()) < config.top_p + 1e-5


@settings(deadline=None, max_examples=60)
@given(logits=logits(), config=configs)
def test_transformers_keeps_the_same_tokens(logits: torch.Tensor, config: SamplingConfig) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    ids = torch.zeros(3, 1, dtype=torch.long)
    expected = process.TemperatureLogitsWarper(config.temperature)(ids, logits)
    if config.top_k is not None:
        expected = process.TopKLogitsWarper(config.top_k)(ids, expected)
    if config.top_p is not None and config.top_p < 1:
        margin = expected.softmax(dim=-1).sort(descending=True).values.cumsum(dim=-1) - config.top_p
        if float(margin.abs().min()) < 1e-5:
            return  # rounding decides whether the last token is kept
        expected = process.TopPLogitsWarper(config.top_p)(ids, expected)
    torch.testing.assert_close(token_probabilities(logits, config), expected.softmax(dim=-1), rtol=1e-4, atol=1e-6)


@given(logits=logits(), temperature=st.sampled_from([0.0, 1e-38, 1e-4]))
@settings(deadline=None, max_examples=30)
def test_a_low_temperature_takes_the_most_probable_token(logits: torch.Tensor, temperature: float) -> None:
    first, second = logits.topk(2, dim=-1).values.unbind(dim=-1)
    assume(bool((first - second > 1e-3).all()))  # nearer ones share the probability even here
    best = logits.argmax(dim=-1)
    config = SamplingConfig(temperature)
    torch.testing.assert_close(
        token_probabilities(logits, config).gather(1, best[:, None]), torch.ones(3, 1), rtol=0, atol=0.02
    )
    if temperature < 1e-4:
        assert torch.equal(sample(logits, config, torch.rand(3, generator=torch.Generator().manual_seed(0))), best)


@given(logits=logits(), n_codebooks=st.integers(1, 4), first=st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_only_tokens_of_the_codebook_that_is_due_are_drawn(logits: torch.Tensor, n_codebooks: int, first: int) -> None:
    codebook = torch.arange(N_TOKENS) % n_codebooks
    allowed = codebook == torch.arange(n_codebooks)[:, None]
    indices = torch.tensor([first, first + 1, first + 5])
    drawn = sample(allow(logits.nan_to_num(neginf=-50.0), allowed, indices), SamplingConfig(2.0), torch.rand(3))
    assert torch.equal(codebook[drawn], (indices - 1) % n_codebooks)
    assert allow(logits, None, indices) is logits


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    config = SamplingConfig(temperature=1.3, top_k=3)
    n = 20_000
    drawn = sample(logits.expand(n, -1), config, torch.rand(n, generator=torch.Generator().manual_seed(0)))
    expected = n * token_probabilities(logits[None], config)[0].double()
    counts = torch.bincount(drawn, minlength=4).double()
    kept = expected > 0
    assert not counts[~kept].any()
    chi_square = float(((counts - expected)[kept] ** 2 / expected[kept]).sum())
    assert chi_square < 13.8  # the 99.9th percentile with two degrees of freedom


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": -1.0}, "temperature is -1"), ({"top_k": 0}, "top_k is 0"), ({"top_p": 0.0}, "top_p is 0")],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)
