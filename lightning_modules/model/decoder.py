"""The decoder: embedding, blocks, head, and the modules that predict further ahead."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_inputs import AttentionInputs, cached_inputs, causal_inputs, packed_inputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts
from lightning_modules.model.host_room import HostRoom
from lightning_modules.model.initialisation import draw_normal, local_part
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.recompute import run_block
from lightning_modules.model.router import Router, Routing
from lightning_modules.model.shared_inputs import shared_inputs
from lightning_modules.model.shared_rows import SharedRows
from lightning_modules.model.token_loss import IGNORED_TARGET, summed_cross_entropy


class DecoderOutput(NamedTuple):
    """What a forward pass yields.

    Attributes:
        logits: scores of the next token [B, T, V].
        ahead_logits: for every multi-token-prediction depth k (from 1), scores of the token k + 1 ahead [B, T, V].
        routings: for every mixture-of-experts layer, those of the prediction modules last, where it sent its tokens.
    """

    logits: Tensor
    ahead_logits: list[Tensor]
    routings: list[Routing]


class DecoderLosses(NamedTuple):
    """What a forward pass yields that is trained on.

    Attributes:
        sums: the cross-entropy of the next token, then of those further ahead, each summed over its targets.
        n_targets: how many targets each has.
        routings: as in `DecoderOutput`.
    """

    sums: list[Tensor]
    n_targets: list[Tensor]
    routings: list[Routing]


class Block(nn.Module):
    """One Transformer block: attention and a feed-forward network, each behind its norm."""

    def __init__(self, config: DecoderConfig, is_dense: bool) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = LatentAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp: FeedForward | MixtureOfExperts = (
            FeedForward(config.hidden_size, config.intermediate_size) if is_dense else MixtureOfExperts(config)
        )

    def forward(
        self, hidden: Tensor, inputs: AttentionInputs, cache: LatentCache | None = None, layer: int = 0
    ) -> tuple[Tensor, Routing | None]:
        """Map [B, T, D] to [B, T, D]; the routing is None in a dense block."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), inputs, cache, layer)
        normalised = self.post_attention_layernorm(hidden)
        if isinstance(self.mlp, MixtureOfExperts):
            output, routing = self.mlp(normalised)
            return hidden + output, routing
        return hidden + self.mlp(normalised), None


class PredictionModule(nn.Module):
    """One depth of Multi-Token Prediction (arXiv 2412.19437, section 2.2).

    Joins what the depth before knows at position i with the embedding of token i + k, and predicts token i + k + 1
    through the decoder's own embedding and head. Published checkpoints concatenate the embedding first.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.enorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = Block(config, is_dense=False)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        embedding: Tensor,
        inputs: AttentionInputs,
        cache: LatentCache | None = None,
        layer: int = 0,
    ) -> tuple[Tensor, Routing]:
        """Join `hidden` and `embedding`, both [B, T, D], into the normalised hidden state of this depth [B, T, D]."""
        joined = self.eh_proj(torch.cat((self.enorm(embedding), self.hnorm(hidden)), dim=-1))
        output, routing = self.block(joined, inputs, cache, layer)
        assert routing is not None  # the block is never dense
        return self.norm(output), routing


class Decoder(nn.Module):
    """DeepSeek-V3: latent attention, leading dense layers, mixtures of experts, multi-token prediction.

    Call `initialize_weights` before training: construction alone leaves stacked weights empty, so that a decoder can
    also be built on the meta device or filled from a checkpoint.

    Attributes:
        recompute: what training drops and computes again (see `run_block`), one of RECOMPUTE_KINDS; nothing at first.
        attends_by_document: whether attention runs over packed documents one by one instead of by spans; off at first.
        shared_rows: how ranks share rows, each of which then computes with a part [2B, C] of them; None: they do not.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = "none"
        self.attends_by_document = False
        self.shared_rows: SharedRows | None = None
        self._host = HostRoom()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, config.is_dense(layer)) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()
        self.mtp = nn.ModuleList(PredictionModule(config) for _ in range(config.num_nextn_predict_layers))

    def forward(
        self,
        tokens: Tensor,
        document_ids: Tensor | None = None,
        positions: Tensor | None = None,
        borders: DocumentBorders | None = None,
    ) -> DecoderOutput:
        """Predict every next token, and those further ahead.

        Args:
            tokens: [B, T + D] token ids, D the depth of multi-token prediction: predictions are made at the first T
                positions, and depth k reads the token k further on.
            document_ids: [B, T] the document of every token; tokens see only their own. None: each row is one.
            positions: [B, T] the place of every token in its document; None counts from where it begins in its row.
            borders: of the documents; attention then runs within them by one kernel (see `packed_inputs`).
        """
        states, routings = self._states(tokens, document_ids, positions, borders)
        logits, *ahead_logits = [self.lm_head(hidden) for hidden in states]
        return DecoderOutput(logits, ahead_logits, routings)

    def losses(
        self,
        tokens: Tensor,
        targets: list[Tensor],
        document_ids: Tensor | None = None,
        positions: Tensor | None = None,
        borders: DocumentBorders | None = None,
    ) -> DecoderLosses:
        """As `forward`, up to the losses: on a GPU, scores of all tokens never exist at once.

        Where ranks share rows, these are the losses of this rank's part.

        Args:
            tokens: as in `forward`.
            targets: for the next token and every depth, what is to be predicted [B, T]; IGNORED_TARGET: nothing.
            document_ids: as in `forward`.
            positions: as in `forward`.
            borders: as in `forward`.
        """
        states, routings = self._states(tokens, document_ids, positions, borders)
        targets = [self.own_part(wanted) for wanted in targets]
        weight = self.lm_head.weight
        sums = [summed_cross_entropy(hidden, weight, wanted) for hidden, wanted in zip(states, targets, strict=True)]
        return DecoderLosses(sums, [(wanted != IGNORED_TARGET).sum() for wanted in targets], routings)

    def next_token_logits(self, tokens: Tensor) -> tuple[Tensor, list[Routing]]:
        """Scores of the next token [B, T, V] at every position of rows [B, T], without looking further ahead."""
        inputs = causal_inputs(self.config, tokens.shape[0], tokens.shape[1], tokens.device)
        hidden, routings = self._trunk(self.embed_tokens(tokens), inputs)
        return self.lm_head(hidden), routings

    def extend(self, tokens: Tensor, cache: LatentCache, absorb: bool | None = None) -> Tensor:
        """Append `tokens` [B, T] to what `cache` holds, and score the token after each of them [B, T, V].

        `absorb` forces absorbed (True) or expanded (False) attention; None takes whichever costs less.
        """
        return self.lm_head(self.extend_hidden(tokens, cache, absorb))

    def extend_hidden(self, tokens: Tensor, cache: LatentCache, absorb: bool | None = None) -> Tensor:
        """As `extend`, up to the final norm: hidden states [B, T, D], from which `lm_head` scores the next token."""
        inputs = cached_inputs(self.config, cache, tokens.shape[1], absorb)
        hidden, _ = self._trunk(self.embed_tokens(tokens), inputs, cache)
        cache.advance(tokens.shape[1])
        return hidden

    def extend_ahead(
        self, depth: int, hidden: Tensor, tokens: Tensor, inputs: AttentionInputs, cache: LatentCache
    ) -> Tensor:
        """Run one multi-token-prediction module over positions that follow those in the modules' own `cache`.

        Lengths stay: once every depth has run over the same positions, the caller advances the cache.

        Args:
            depth: k, from 1.
            hidden: [B, T, D] what depth k - 1 made of these positions; depth 0 is `extend_hidden`.
            tokens: [B, T] the token k further on than each position.
            inputs: `cached_inputs` for these positions, the same for every depth.
            cache: the modules' cache, a layer a depth.

        Returns:
            Hidden states [B, T, D], from which `lm_head` scores the token k + 1 further on.
        """
        output, _ = self.mtp[depth - 1](hidden, self.embed_tokens(tokens), inputs, cache, depth - 1)
        return output

    def blocks(self) -> list[nn.Module]:
        """What runs one after the other: the layers' blocks, then the prediction modules."""
        return [*self.layers, *self.mtp]

    def routers(self) -> list[Router]:
        """The routers of all mixture-of-experts layers, in the order of `DecoderOutput.routings`."""
        return [module for module in self.modules() if isinstance(module, Router)]

    def expert_layers(self) -> list[int]:
        """Layer numbers of `routers()`; a prediction module's block counts on after the last layer, as published."""
        n_layers = self.config.num_hidden_layers
        return [*range(self.config.first_k_dense_replace, n_layers), *range(n_layers, n_layers + len(self.mtp))]

    @torch.no_grad()
    def initialize_weights(self, seed: int = 0) -> None:
        """Draw every matrix from N(0, initializer_range²); norms start at one and biases at zero.

        Every number depends on `seed`, its parameter's name and its place there alone: a decoder that is sharded over
        ranks gets exactly the weights of one that is not.
        """
        for name, parameter in self.named_parameters():
            module = self.get_submodule(name.rpartition(".")[0])
            if isinstance(module, nn.RMSNorm):
                local_part(parameter)[0].fill_(1.0)
            else:
                by_expert = isinstance(module, GroupedExperts)
                draw_normal(parameter, self.config.initializer_range, seed, name, by_expert)
        for router in self.routers():
            router.reset_balance()

    def own_part(self, rows: Tensor, lookahead: int = 0) -> Tensor:
        """What this rank computes with of `rows` [B, T + lookahead]: all, or as `SharedRows.own` has it."""
        return rows if self.shared_rows is None else self.shared_rows.own(rows, lookahead)

    @property
    def n_sharing(self) -> int:
        """Ranks that share rows, this one included."""
        return 1 if self.shared_rows is None else self.shared_rows.n_ranks

    @property
    def waits_for_host(self) -> bool:
        """Whether a forward pass on a GPU asks the host for numbers that the GPU has computed."""
        mixtures = [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
        return any(mixture.waits_for_host for mixture in mixtures)

    def tie_weights(self) -> None:
        """Let the head be the embedding again, where it is: materialising a decoder from meta makes two of them."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def _states(
        self,
        tokens: Tensor,
        document_ids: Tensor | None,
        positions: Tensor | None,
        borders: DocumentBorders | None,
    ) -> tuple[list[Tensor], list[Routing]]:
        """What the head reads [B, T, D]: of the last layer, then of every prediction module."""
        depth = len(self.mtp)
        inputs = self._attention_inputs(tokens, document_ids, positions, borders)
        tokens = self.own_part(tokens, lookahead=depth)
        n_positions = tokens.shape[1] - depth
        embeddings = self.embed_tokens(tokens)
        hidden, routings = self._trunk(embeddings[:, :n_positions], inputs)
        states = [hidden]
        for k, module in enumerate(self.mtp, start=1):
            hidden, routing = self._run(module, hidden, embeddings[:, k : k + n_positions], inputs)
            assert routing is not None  # its block is never dense
            states.append(hidden)
            routings.append(routing)
        return states, routings

    def _attention_inputs(
        self,
        tokens: Tensor,
        document_ids: Tensor | None,
        positions: Tensor | None,
        borders: DocumentBorders | None,
    ) -> AttentionInputs:
        n_positions = tokens.shape[1] - len(self.mtp)
        if self.shared_rows is not None:
            ids = torch.zeros_like(tokens[:, :n_positions]) if document_ids is None else document_ids
            return shared_inputs(self.config, self.shared_rows, ids, positions, borders)
        if document_ids is None:
            return causal_inputs(self.config, tokens.shape[0], n_positions, tokens.device)
        return packed_inputs(self.config, document_ids, positions, self.attends_by_document, borders)

    def _trunk(
        self, hidden: Tensor, inputs: AttentionInputs, cache: LatentCache | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """The blocks and the final norm."""
        routings = []
        for index, block in enumerate(self.layers):
            hidden, routing = self._run(block, hidden, inputs, cache, index)
            if routing is not None:
                routings.append(routing)
        return self.norm(hidden), routings

    def _run(self, block: nn.Module, *inputs: Any) -> tuple[Tensor, Routing | None]:
        """Call a block or prediction module, and keep only what its backward pass has to."""
        return run_block(self.recompute if torch.is_grad_enabled() else "none", block, inputs, self._host)
