"""Decoding by DeepseekV3ForCausalLM of transformers.

On a GPU over its static cache, each step compiled as its own `generate` compiles it ("reduce-overhead", CUDA graphs
included); on a CPU uncompiled over its dynamic cache, which was faster there. Prompts are computed uncompiled, which is
what its `generate` does.
"""

import torch
import transformers
from torch import Tensor

from benchmarks.clock import StepClock
from benchmarks.decoding.workload import DecodingWorkload
from benchmarks.peers.transformers_model import build_model
from lightning_modules.model.decoder import Decoder

NAME = "transformers"


class TransformersDecoding:
    """Is fed what our rows have said, a token a row and step, and scores what they say next.

    Args:
        decoder: ours, whose weights it takes.
        workload: the rows.
        clock: of the steps.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder, workload: DecodingWorkload, clock: StepClock) -> None:
        self.clock = clock
        self.model = build_model(workload.decoder, decoder.state_dict(), clock.device).eval()
        own = workload.own_tokens().to(clock.device)
        self.cache = self._filled_cache(workload)
        # The last token of the prompt is what the first step feeds.
        self._feed, self._last = own[:, :-1], own[:, -1]
        if self._feed.shape[1]:
            self.model(self._feed, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        on_gpu = clock.device.type == "cuda"
        self._compiled = torch.compile(self.model, mode="reduce-overhead") if on_gpu else self.model

    @torch.inference_mode()
    def step(self, said: Tensor) -> Tensor:
        """Scores [B, V] of the token after those that the rows have said so far [B, n]."""
        tokens = said[:, -1] if said.shape[1] else self._last
        self.clock.start()
        output = self._compiled(tokens[:, None], past_key_values=self.cache, use_cache=True)
        # A CUDA graph writes where it has written before.
        logits = output.logits[:, -1].clone()
        logits.argmax(-1)
        self.clock.stop()
        return logits

    def _filled_cache(self, workload: DecodingWorkload) -> transformers.Cache:
        """A cache of all rows that holds what they share."""
        config, shared = self.model.config, workload.shared_tokens().to(self.clock.device)
        one = transformers.DynamicCache(config=config)
        self.model(shared, past_key_values=one, use_cache=True, logits_to_keep=1)
        if self.clock.device.type == "cpu":
            one.batch_repeat_interleave(workload.batch)
            return one
        cache = transformers.StaticCache(config=config, max_cache_len=workload.capacity)
        for mine, theirs in zip(cache.layers, one.layers, strict=True):
            keys, values = (x.expand(workload.batch, -1, -1, -1) for x in (theirs.keys, theirs.values))
            mine.lazy_initialization(keys, values)
            mine.update(keys, values)
        return cache


class TransformersPrefill:
    """Computes whole prompts, again and again, over a cache that grows with them.

    Args:
        decoder: ours, whose weights it takes.
        workload: the rows.
        clock: of the prefills.
    """

    def __init__(self, decoder: Decoder, workload: DecodingWorkload, clock: StepClock) -> None:
        self.clock = clock
        self.model = build_model(workload.decoder, decoder.state_dict(), clock.device).eval()
        self.prompts = workload.prompts().to(clock.device)

    @torch.inference_mode()
    def step(self, said: Tensor) -> Tensor:
        """Scores [B, V] of the token after the prompts."""
        cache = transformers.DynamicCache(config=self.model.config)
        self.clock.start()
        output = self.model(self.prompts, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.clock.stop()
        return output.logits[:, -1]
