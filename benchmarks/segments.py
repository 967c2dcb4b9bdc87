"""Segmented against whole experts, at equal parameters: loss after a short training, and speed, side by side.

    python -m benchmarks.segments [--steps 200] [--device cpu]

Prints one JSON line: for every variant its parameters, those active for a token, its loss on held-out tokens in nats
(mean and spread over seeds; `loss_floor` is what the best predictor reaches), and training tokens a second (the median
over steps; variants take turns, so that a busy machine slows all of them alike).
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import GroupedExperts

VOCABULARY = 96
WHOLE = DecoderConfig(
    vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=None,
    kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=32, intermediate_size=128,
    moe_intermediate_size=64, first_k_dense_replace=0, n_routed_experts=8, n_shared_experts=0, num_experts_per_tok=2,
    n_group=1, topk_group=1, scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=1.0,
    rope_theta=10000.0, rms_norm_eps=1e-6, max_position_embeddings=256, tie_word_embeddings=False,
    initializer_range=0.05, num_nextn_predict_layers=0,
)  # fmt: skip
# Every variant has the same experts' parameters, and all but `custom` the same number of them active for every token.
VARIANTS = {
    "whole": WHOLE,
    "independent": replace(WHOLE, num_expert_segments=4),
    "custom": replace(WHOLE, num_expert_segments=3, expert_segment_sizes=(8, 24, 32)),
    # Four experts, and two of the four segments of each: as many segments as above.
    "hierarchical": replace(
        WHOLE,
        num_expert_segments=4,
        expert_segment_routing="hierarchical",
        num_experts_per_tok=4,
        num_segments_per_expert=2,
    ),
}


class AlternatingTokens:
    """Tokens with much to learn by heart: each of several dialects, told by the first token, has its own successors.

    Most tokens follow from their dialect and the token before; the rest are noise, drawn evenly.
    """

    def __init__(self, n_dialects: int = 16, noise: float = 0.1, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.noise = noise
        self.successors = torch.randint(n_dialects, VOCABULARY, (n_dialects, VOCABULARY), generator=generator)

    def floor(self, length: int) -> float:
        """The expected cross-entropy of tokens 1 … length under their own distribution; the first of them is noise."""
        usual = 1 - self.noise + self.noise / VOCABULARY
        later = -usual * math.log(usual) - (1 - usual) * math.log(self.noise / VOCABULARY)
        return (math.log(VOCABULARY) + (length - 1) * later) / length

    def draw(self, batch_size: int, length: int, generator: torch.Generator) -> Tensor:
        """Draw [batch_size, length] tokens."""
        dialects = torch.randint(len(self.successors), (batch_size,), generator=generator)
        tokens = [dialects, torch.randint(VOCABULARY, (batch_size,), generator=generator)]
        while len(tokens) < length:
            noisy = torch.rand(batch_size, generator=generator) < self.noise
            random = torch.randint(VOCABULARY, (batch_size,), generator=generator)
            tokens.append(torch.where(noisy, random, self.successors[dialects, tokens[-1]]))
        return torch.stack(tokens, dim=1)


@dataclass
class Contestant:
    """One variant in training from one seed."""

    decoder: Decoder
    optimizer: torch.optim.Optimizer
    seconds: list[float] = field(default_factory=list)

    def step(self, tokens: Tensor, bias_update_speed: float = 1e-3) -> None:
        """Take one optimizer step on `tokens` [B, T + 1], and time it."""
        start = time.perf_counter()
        logits, routings = self.decoder.next_token_logits(tokens[:, :-1])
        self.optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        self.optimizer.step()
        for router, routing in zip(self.decoder.routers(), routings, strict=True):
            router.update_bias(routing.load(), bias_update_speed)
        if tokens.is_cuda:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)

    @torch.no_grad()
    def loss(self, tokens: Tensor) -> float:
        """Mean cross-entropy on held-out `tokens` [B, T + 1]."""
        logits, _ = self.decoder.next_token_logits(tokens[:, :-1])
        return float(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))


def enter(config: DecoderConfig, seed: int, device: str) -> Contestant:
    torch.manual_seed(seed)
    decoder = Decoder(config).to(device)
    decoder.initialize_weights()
    return Contestant(decoder, torch.optim.AdamW(decoder.parameters(), lr=3e-3, betas=(0.9, 0.95)))


def expert_parameters(decoder: Decoder) -> int:
    stacks = [module for module in decoder.modules() if isinstance(module, GroupedExperts)]
    return sum(parameter.numel() for stack in stacks for parameter in stack.parameters())


def mean_active_expert_parameters(contestant: Contestant, tokens: Tensor) -> float:
    """Parameters of the experts that a token went through, over all layers, measured on `tokens`."""
    config = contestant.decoder.config
    sizes = torch.tensor(config.segment_sizes).repeat(config.n_routed_experts)
    with torch.no_grad():
        _, routings = contestant.decoder.next_token_logits(tokens[:, :-1])
    widths = [float(sizes[routing.indices.cpu()].sum(dim=1).float().mean()) for routing in routings]
    return 3 * config.hidden_size * sum(widths)


def compare(n_steps: int, n_seeds: int, batch_size: int, sequence_length: int, device: str) -> dict[str, object]:
    language = AlternatingTokens()
    held_out = language.draw(64, sequence_length + 1, torch.Generator().manual_seed(1)).to(device)
    contestants = {name: [enter(config, s, device) for s in range(n_seeds)] for name, config in VARIANTS.items()}
    for seed in range(n_seeds):
        generator = torch.Generator().manual_seed(100 + seed)
        for _ in range(n_steps):
            tokens = language.draw(batch_size, sequence_length + 1, generator).to(device)
            for team in contestants.values():
                team[seed].step(tokens)
    results = {}
    for name, team in contestants.items():
        losses = [contestant.loss(held_out) for contestant in team]
        seconds = [second for contestant in team for second in contestant.seconds[n_steps // 10 :]]
        results[name] = {
            "parameters": sum(parameter.numel() for parameter in team[0].decoder.parameters()),
            "expert_parameters": expert_parameters(team[0].decoder),
            "active_expert_parameters": round(
                statistics.mean(mean_active_expert_parameters(c, held_out) for c in team)
            ),
            "loss": round(statistics.mean(losses), 4),
            "loss_spread": round(max(losses) - min(losses), 4),
            "tokens_per_second": round(batch_size * sequence_length / statistics.median(seconds)),
        }
    assert len({result["expert_parameters"] for result in results.values()}) == 1
    setting = {"steps": n_steps, "seeds": n_seeds, "batch_size": batch_size, "sequence_length": sequence_length}
    return {
        "benchmark": "segments",
        "device": device,
        **setting,
        "loss_floor": round(language.floor(sequence_length), 4),
        "variants": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segments", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sequence-length", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    print(
        json.dumps(
            compare(arguments.steps, arguments.seeds, arguments.batch_size, arguments.sequence_length, arguments.device)
        )
    )


if __name__ == "__main__":
    main()
