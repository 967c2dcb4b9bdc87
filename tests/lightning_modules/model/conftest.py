"""An implementation that we did not write, holding the same weights: DeepseekV3 of transformers."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.layouts.huggingface_config import huggingface_config
from pipeline.checkpoints.names import published_name

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The greatest difference, relative to the greatest value of `expected`."""
    return float(((actual - expected).abs().max() / expected.abs().max()).detach())


@dataclass(frozen=True)
class Comparison:
    """Relative errors against the reference."""

    logits: float
    ahead_logits: float
    gradients: dict[str, float]

    @property
    def worst(self) -> float:
        return max(self.logits, self.ahead_logits, *self.gradients.values())


class Reference:
    """transformers' DeepseekV3 with its prediction modules, and our decoder's weights in memory.

    Args:
        decoder: whose weights to take.
        attention: transformers' implementation of attention.
    """

    def __init__(self, decoder: Decoder, attention: str = "eager") -> None:
        transformers = pytest.importorskip("transformers")
        from transformers.modeling_layers import MtpModel

        config = decoder.config
        dtype = decoder.embed_tokens.weight.dtype
        described = huggingface_config(config, SPECIAL, "float32")
        reference = transformers.DeepseekV3Config(**described, attn_implementation=attention)
        self.model = transformers.DeepseekV3ForCausalLM(reference).eval()
        self.mtp = MtpModel(self.model, config.num_nextn_predict_layers).eval()
        self.names = {name: self._name(name, config) for name in decoder.state_dict() if "expert_loads" not in name}
        weights = {self.names[name]: tensor for name, tensor in decoder.state_dict().items() if name in self.names}
        missing, unexpected = self._load(weights)
        assert not unexpected
        assert all("shared_experts" in name for name in missing), missing  # theirs are there, empty, where ours are not
        for module in (self.model, self.mtp):
            for parameter in module.parameters():
                parameter.data = parameter.data.to(dtype)

    def _load(self, weights: dict[str, Tensor]) -> tuple[list[str], list[str]]:
        main = {name: tensor for name, tensor in weights.items() if not name.startswith("mtp.")}
        ahead = {name.removeprefix("mtp."): tensor for name, tensor in weights.items() if name.startswith("mtp.")}
        missing, unexpected = self.model.load_state_dict(main, strict=False)
        absent, surplus = self.mtp.load_state_dict(ahead, strict=False)
        shared = ("embed_tokens.", "shared_head.", "rotary_emb.")
        return [*missing, *(n for n in absent if not n.startswith(shared))], [*unexpected, *surplus]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by our names."""
        theirs = dict(self.model.named_parameters()) | {f"mtp.{n}": p for n, p in self.mtp.named_parameters()}
        return {ours: theirs[name] for ours, name in self.names.items() if name in theirs}

    def __call__(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and those further ahead, at the first T of [B, T + D] tokens, as `Decoder` computes them."""
        depth = len(self.mtp.layers)
        n_positions = tokens.shape[1] - depth
        output = self.model.model(input_ids=tokens[:, :n_positions])
        hidden = output.last_hidden_state
        logits, ahead = self.model.lm_head(hidden), []
        positions = torch.arange(n_positions)[None]
        mask = torch.full((n_positions, n_positions), float("-inf"), dtype=hidden.dtype).triu(1)[None, None]
        for k, layer in enumerate(self.mtp.layers, start=1):
            embedding = self.model.model.embed_tokens(tokens[:, k : k + n_positions])
            angles = self.model.model.rotary_emb(hidden, positions)
            hidden = layer(embedding, hidden, angles, mask, positions, None)
            ahead.append(self.model.lm_head(hidden))
        return logits, ahead

    @staticmethod
    def _name(name: str, config: DecoderConfig) -> str:
        if not name.startswith("mtp."):
            return published_name(name, config)
        _, depth, rest = name.split(".", 2)
        part, _, inner = rest.partition(".")
        part = {"block": "mtp_block", "norm": "post_norm"}.get(part, part)
        return f"mtp.layers.{depth}.{part}.{inner}"


def weigh(logits: Tensor, ahead_logits: list[Tensor]) -> Tensor:
    """A scalar to take gradients of, in which every logit counts differently."""
    generator = torch.Generator().manual_seed(7)
    means = [(x.float() * torch.randn(x.shape, generator=generator)).mean() for x in (logits, *ahead_logits)]
    return torch.stack(means).sum()


def compare(decoder: Decoder, reference: Reference, tokens: Tensor) -> Comparison:
    """Run both forwards and backwards on `tokens` [B, T + D]."""
    ours = decoder(tokens)
    theirs, theirs_ahead = reference(tokens)
    decoder.zero_grad()
    weigh(ours.logits, ours.ahead_logits).backward()
    weigh(theirs, theirs_ahead).backward()
    theirs_by_name = reference.parameters()
    gradients = {}
    for name, parameter in decoder.named_parameters():
        expected = theirs_by_name[name].grad
        assert parameter.grad is not None, name
        assert expected is not None, name
        gradients[name] = relative_error(parameter.grad, expected)
    ahead = [relative_error(a, b) for a, b in zip(ours.ahead_logits, theirs_ahead, strict=True)]
    return Comparison(relative_error(ours.logits, theirs), max(ahead, default=0.0), gradients)


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference


@pytest.fixture(scope="session")
def compare_with_reference() -> Callable[..., Comparison]:
    """Compare a decoder with a reference on random tokens."""

    def run(decoder: Decoder, reference: Reference, n_tokens: int = 24) -> Comparison:
        size = (2, n_tokens + decoder.config.num_nextn_predict_layers)
        tokens = torch.randint(0, decoder.config.vocab_size, size, generator=torch.Generator().manual_seed(0))
        return compare(decoder, reference, tokens)

    return run
