"""The export generates in transformers what the decoder generates here."""

import re
from pathlib import Path

import pytest
import torch

from lightning_modules.model.decoding.generation import generate, generate_speculatively
from lightning_modules.model.decoding.speculation import Acceptance
from lightning_modules.model.sampling_configuration import SamplingConfig

transformers = pytest.importorskip("transformers")
GREEDY = SamplingConfig(temperature=0)
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture
def load_in_transformers(export_decoder, tmp_path: Path):
    """Export a decoder, and load it there; nothing ends generation early."""

    def load(decoder):
        export_decoder(decoder, tmp_path / "export", special_tokens=SPECIAL, shard_bytes=200_000)
        model = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "export").eval()
        model.generation_config.eos_token_id = None
        return model

    return load


def continuation(model, prompt: torch.Tensor, n: int, **options) -> torch.Tensor:
    mask = torch.ones_like(prompt)
    return model.generate(prompt, attention_mask=mask, max_new_tokens=n, do_sample=False, **options)[
        :, len(prompt[0]) :
    ]


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None, "n_shared_experts": 2}])
def test_transformers_generates_the_same_greedy_tokens(build_decoder, load_in_transformers, changes: dict) -> None:
    decoder = build_decoder(**changes)
    model = load_in_transformers(decoder)
    prompt = torch.tensor([[1, 20, 11, 5], [1, 7, 3, 30]])
    ours = torch.stack(list(generate(decoder, prompt, 200, GREEDY)), dim=1)
    assert torch.equal(continuation(model, prompt, 200), ours)
    assert len(ours[0].unique()) > 2, "a repeated token would say little"


@pytest.fixture
def their_drafts(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the prediction modules of transformers draft: all tokens so far [N], the drafts' included, and logits."""
    modeling_layers = pytest.importorskip("transformers.modeling_layers")
    if not hasattr(modeling_layers, "MtpModel"):
        pytest.skip("this transformers has no multi-token prediction")
    forward, drafts = modeling_layers.MtpModel.forward, []

    def recorded(self, *values, full_input_ids, **named):
        output = forward(self, *values, full_input_ids=full_input_ids, **named)
        drafts.append((torch.cat((full_input_ids, output[0]), dim=1)[0], output[1][0]))
        return output

    monkeypatch.setattr(modeling_layers.MtpModel, "forward", recorded)
    return drafts


@pytest.mark.parametrize("depth", [1, 2])
def test_transformers_speculates_the_same_greedy_tokens(
    build_decoder, load_in_transformers, their_drafts, depth: int
) -> None:
    decoder = build_decoder(num_nextn_predict_layers=depth)
    model = load_in_transformers(decoder)
    # transformers looks for prediction modules at layer 61 alone, whatever config.json says: it has to be told.
    model._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{3 + k}\..*" for k in range(depth)]
    prompt = torch.tensor([[1, 7, 3, 30]])
    acceptance = Acceptance()
    ours = torch.cat(list(generate_speculatively(decoder, prompt, 200, GREEDY, acceptance=acceptance)))
    theirs = continuation(model, prompt, 200, use_mtp=True)[0]
    assert torch.equal(theirs, ours)
    assert torch.equal(continuation(model, prompt, 200)[0], ours)
    # Their first token comes without a draft.
    assert len(their_drafts) + 1 >= acceptance.n_rounds > 0
    for tokens, logits in their_drafts:
        with torch.no_grad():
            expected = torch.cat([ahead[0, -1:] for ahead in decoder(tokens[None, :-1]).ahead_logits])
        assert float((logits - expected).abs().max() / expected.abs().max()) < 5e-6


def test_an_export_of_the_published_depth_speculates_without_being_told(
    build_decoder, load_in_transformers, their_drafts
) -> None:
    decoder = build_decoder(num_hidden_layers=61)
    model = load_in_transformers(decoder)
    assert any(re.search(key, "model.layers.61.eh_proj.weight") for key in model._keys_to_ignore_on_load_unexpected)
    prompt = torch.tensor([[1, 7, 3, 30]])
    ours = torch.cat(list(generate(decoder, prompt, 12, GREEDY)))
    assert torch.equal(continuation(model, prompt, 12, use_mtp=True)[0], ours)
    assert their_drafts
