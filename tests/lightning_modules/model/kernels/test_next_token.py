"""Draws and what becomes of rows, against torch's; under TRITON_INTERPRET=1 without a GPU."""

import os
from dataclasses import fields

import pytest
import torch

from lightning_modules.model.decoding.sampling import TokenSource, token_probabilities
from lightning_modules.model.decoding.state import DRAWING, RowState
from lightning_modules.model.sampling_configuration import SamplingConfig

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels.next_token import add_next_tokens, probabilities  # noqa: E402

END = 5
SAMPLINGS = [
    SamplingConfig(temperature=0),
    SamplingConfig(1.0),
    SamplingConfig(0.7, top_k=1),
    SamplingConfig(1.3, top_k=20),
    SamplingConfig(1.0, top_p=0.6),
    SamplingConfig(1.5, top_k=500, top_p=0.9),
]


def rows_of(n_rows: int, seed: int) -> RowState:
    """Rows of many lengths, some of which have ended or are about to."""
    generator = torch.Generator().manual_seed(seed)
    state = RowState.empty(n_rows, 30, 1, torch.device(DEVICE))
    lengths = torch.randint(1, 29, (n_rows,), generator=generator)
    limits = lengths + torch.randint(1, 4, (n_rows,), generator=generator)
    prompts = torch.randint(0, 40, (n_rows, 20), generator=generator)
    values = (torch.arange(n_rows), prompts, lengths, torch.ones_like(lengths), limits, torch.arange(n_rows))
    state.seat(*(value.to(DEVICE) for value in values))
    state.limits[::3] = 0
    return state


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("n_tokens", [40, 1000])
@pytest.mark.parametrize("n_masks", [0, 3])
def test_rows_become_what_torch_makes_of_them(sampling: SamplingConfig, n_tokens: int, n_masks: int) -> None:
    generator = torch.Generator().manual_seed(n_tokens)
    logits = (3 * torch.randn(24, n_tokens, generator=generator)).to(DEVICE)
    allowed = (torch.rand(n_masks, n_tokens, generator=generator) < 0.5).to(DEVICE) if n_masks else None
    ours, theirs = rows_of(24, n_tokens), rows_of(24, n_tokens)
    logits[1::5, END] = 60.0
    if allowed is not None:
        allowed[:, END] = True
    chances = theirs.chances_of(DRAWING, theirs.next_places(1))[:, 0]
    # Torch's own way, which a CPU takes.
    drawn = TokenSource(sampling, None if allowed is None else allowed.cpu(), END).draw(
        logits.cpu(), theirs.lengths.cpu(), chances.cpu()
    )
    drawn = drawn.to(DEVICE)
    theirs.add(drawn[:, None], torch.ones_like(drawn), END)
    add_next_tokens(
        logits,
        sampling,
        allowed,
        END,
        ours.tokens,
        ours.lengths,
        ours.limits,
        ours.chances[DRAWING],
        ours.said,
    )
    assert bool((theirs.said[:, 3] == END).any())
    for field in fields(RowState):
        assert torch.equal(getattr(ours, field.name), getattr(theirs, field.name)), field.name


@pytest.mark.parametrize("sampling", SAMPLINGS[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_distributions_are_torchs(sampling: SamplingConfig, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(3, 2, 1000, generator=generator)).to(dtype)
    logits[:, :, ::3] = float("-inf")
    ours, theirs = probabilities(logits.to(DEVICE), sampling).cpu(), token_probabilities(logits, sampling)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert torch.equal(ours > 0, theirs > 0)


def test_tokens_that_tie_are_all_kept_and_drawn_as_often() -> None:
    # BF16 logits tie often; all that tie with the last one kept are kept.
    logits = torch.tensor([3.0, 1.0, 1.0, 1.0, -2.0], device=DEVICE).repeat(400, 1)
    for sampling in (SamplingConfig(2.0, top_k=2), SamplingConfig(2.0, top_p=0.6)):
        state = RowState.empty(400, 4, 1, torch.device(DEVICE))
        state.chances[DRAWING, :, 1] = (torch.arange(400, device=DEVICE) + 0.5) / 400
        values = (state.tokens, state.lengths, state.limits, state.chances[DRAWING], state.said)
        add_next_tokens(logits, sampling, None, None, *values)
        counts = torch.bincount(state.said[:, 3], minlength=5)
        expected = 400 * token_probabilities(logits[:1].cpu(), sampling)[0].to(DEVICE)
        assert float((counts - expected).abs().max()) <= 1
        assert counts[4] == 0
        assert bool((counts[1:4] > 0).all())
