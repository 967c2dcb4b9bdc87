import pytest
import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.sampling_configuration import SamplingConfig
from lightning_modules.model.sliding import window_start

GREEDY = SamplingConfig(temperature=0.0, top_k=None, top_p=None)


@pytest.mark.parametrize("context", [2, 3, 8, 9])
def test_every_token_sees_all_or_at_least_half_of_a_context_and_never_more_than_one(context: int) -> None:
    places = torch.arange(50)
    starts = window_start(places, context)
    assert starts.tolist() == [window_start(place, context) for place in range(50)]
    seen = places - starts + 1
    assert torch.equal(seen[:context], places[:context] + 1)
    assert bool((seen[context:] > context - context // 2).all())
    assert bool((seen <= context).all())
    assert set(torch.unique(starts).tolist()) <= set(range(0, 50, context // 2))


def slowly(decoder: Decoder, prompt: Tensor, n_new: int, context: int) -> list[int]:
    """Greedy tokens, each from a forward pass over its window alone."""
    tokens = prompt.tolist()
    for _ in range(n_new):
        window = tokens[window_start(len(tokens) - 1, context) :]
        with torch.no_grad():
            logits, _ = decoder.next_token_logits(torch.tensor([window]))
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("context", [6, 7])
def test_generation_sees_what_a_forward_pass_over_each_window_sees(build_decoder, context: int) -> None:
    decoder, lengths = build_decoder(), [1, 5, 6, 13]
    prompts = torch.randint(0, 40, (4, 13), generator=torch.Generator().manual_seed(0))
    steps = generate(decoder, prompts, 15, GREEDY, prompt_lengths=torch.tensor(lengths), context=context)
    drawn = torch.stack(list(steps), dim=1)
    for row, length in enumerate(lengths):
        assert drawn[row].tolist() == slowly(decoder, prompts[row, :length], 15, context)


def test_a_context_that_nothing_reaches_changes_nothing(build_decoder) -> None:
    decoder, prompt = build_decoder(), torch.tensor([[3, 1, 4]])
    plain, bounded = (
        torch.stack(list(generate(decoder, prompt, 8, GREEDY, context=context))) for context in (None, 100)
    )
    assert torch.equal(plain, bounded)


def test_a_context_of_one_token_is_refused(build_decoder) -> None:
    with pytest.raises(ValueError, match="context is 1; it takes 2 or more"):
        next(generate(build_decoder(), torch.tensor([[1]]), 3, GREEDY, context=1))
