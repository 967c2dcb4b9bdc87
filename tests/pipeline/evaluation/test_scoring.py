from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.router import Routing
from lightning_modules.model.sampling_configuration import SamplingConfig
from lightning_modules.model.sliding import window_start
from pipeline.evaluation.scoring import score_documents, token_nats
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.vocabulary import Special, Vocabulary

FRAMES = [9, 1, 30, 0, 9, 4, 17]


def reference_losses(decoder: Decoder, documents: TokenDataset, n_codebooks: int) -> tuple[list[Tensor], list[Counter]]:
    """Losses in float64 by position, and the experts chosen in each layer: one document, nothing padded, at a time."""
    losses: list[list[Tensor]] = [[] for _ in range(n_codebooks)]
    chosen = [Counter() for _ in range(2)]
    with torch.no_grad():
        for index in range(len(documents)):
            tokens = torch.from_numpy(documents[index])
            logits, routings = decoder.next_token_logits(tokens[None, :-1])
            for place, target in enumerate(tokens[1:]):
                losses[place % n_codebooks].append(F.cross_entropy(logits[0, place].double(), target))
            for counter, routing in zip(chosen, routings, strict=True):
                counter.update(routing.indices.flatten().tolist())
    return [torch.stack(position) for position in losses], chosen


@pytest.mark.parametrize("tokens_per_batch", [1, 50, 100_000])
def test_every_document_is_scored_as_if_it_were_alone(build_decoder, random_split, tokens_per_batch: int) -> None:
    decoder, documents = build_decoder(), random_split("test", FRAMES)
    losses, chosen = reference_losses(decoder, documents, 2)
    score = score_documents(decoder, documents, 2, tokens_per_batch)
    assert score.n_tokens == sum(2 * frames + 1 for frames in FRAMES) == sum(len(position) for position in losses)
    assert score.loss == pytest.approx(float(torch.cat(losses).mean()), abs=1e-5)
    assert score.by_codebook == pytest.approx([float(position.mean()) for position in losses], abs=1e-5)
    assert list(score.choices) == [1, 2]
    for choices, counter in zip(score.choices.values(), chosen, strict=True):
        assert choices.load.tolist() == [counter[expert] for expert in range(8)]


@pytest.mark.parametrize("context", [4, 7, 1000])
def test_long_documents_are_seen_through_windows_and_every_token_counts_once(
    build_decoder, random_split, context: int
) -> None:
    decoder, documents = build_decoder(), random_split("test", FRAMES)
    losses: list[list[float]] = [[], []]
    chosen = [Counter(), Counter()]
    with torch.no_grad():
        for index in range(len(documents)):
            tokens = torch.from_numpy(documents[index])
            for place, target in enumerate(tokens[1:]):
                window = tokens[window_start(place, context) : place + 1]
                logits, routings = decoder.next_token_logits(window[None])
                losses[place % 2].append(float(F.cross_entropy(logits[0, -1].double(), target)))
                for counter, routing in zip(chosen, routings, strict=True):
                    counter.update(routing.indices[-1].tolist())
    score = score_documents(decoder, documents, 2, tokens_per_batch=50, context=context)
    assert score.n_tokens == len(losses[0]) + len(losses[1])
    assert score.by_codebook == pytest.approx([sum(losses[q]) / len(losses[q]) for q in (0, 1)], abs=1e-5)
    for choices, counter in zip(score.choices.values(), chosen, strict=True):
        assert choices.load.tolist() == [counter[expert] for expert in range(8)]


@pytest.mark.parametrize("tokens_per_batch", [1, 40, 70])
def test_batches_keep_within_their_tokens_as_far_as_documents_allow(
    build_decoder, random_split, tokens_per_batch: int
) -> None:
    decoder = build_decoder()
    shapes: list[tuple[int, int]] = []
    decoder.embed_tokens.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(inputs[0].shape)))
    score_documents(decoder, random_split("test", FRAMES), 2, tokens_per_batch)
    assert sum(rows for rows, _ in shapes) == len(FRAMES)
    assert all(rows * length <= tokens_per_batch or rows == 1 for rows, length in shapes)


def test_a_decoder_without_experts_has_no_loads(build_decoder, random_split) -> None:
    decoder = build_decoder(first_k_dense_replace=3, num_nextn_predict_layers=0)
    score = score_documents(decoder, random_split("test", FRAMES), 2)
    assert score.choices == {}
    assert score.loss > 0


@pytest.mark.parametrize("context", [None, 7])
def test_every_token_is_judged_where_it_stands(build_decoder, random_split, context: int | None) -> None:
    decoder, documents = build_decoder(), random_split("test", FRAMES)
    tokens = score_documents(decoder, documents, 2, tokens_per_batch=50, context=context).tokens
    wanted = []
    with torch.no_grad():
        for index in range(len(documents)):
            document = torch.from_numpy(documents[index])
            for place in range(1, len(document)):
                start = window_start(place - 1, context) if context else 0
                p = decoder.next_token_logits(document[None, start:place])[0][0, -1].double().softmax(-1)
                truth = float(-p[document[place]].log()), float(p.max()), int(p.argmax()) == int(document[place])
                wanted.append((index, place, *truth))
    found = zip(tokens.document, tokens.place, tokens.nats, tokens.confidence, tokens.is_right, strict=True)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_predictions_further_ahead_are_scored_and_held_against_the_decoders_own(build_decoder, random_split) -> None:
    decoder, documents = build_decoder(num_nextn_predict_layers=2), random_split("test", FRAMES)
    sampling = SamplingConfig(temperature=0.7)
    tokens = score_documents(decoder, documents, 2, tokens_per_batch=50, sampling=sampling).tokens
    for index in range(len(documents)):
        document, own = torch.from_numpy(documents[index]), tokens.document == index
        with torch.no_grad():
            # Behind the end stands anything: nothing that is scored has read it.
            output = decoder(torch.cat((document, torch.zeros(2, dtype=torch.long)))[None])
        for k, logits in enumerate(output.ahead_logits, start=1):
            n = max(len(document) - 1 - k, 0)
            nats = F.cross_entropy(logits[0, :n].double(), document[k + 1 :], reduction="none")
            q, p = ((values[0] / 0.7).double().softmax(-1) for values in (logits[:, :n], output.logits[:, k : n + k]))
            for found, wanted in ((tokens.ahead_nats, nats), (tokens.acceptance, torch.minimum(p, q).sum(-1))):
                padded = F.pad(wanted, (0, len(document) - 1 - n), value=torch.nan)
                assert found[k - 1, own] == pytest.approx(padded.tolist(), abs=1e-5, nan_ok=True)


def test_drafts_equal_to_the_decoders_own_predictions_are_always_kept(build_decoder, random_split) -> None:
    decoder = build_decoder(num_nextn_predict_layers=1)
    torch.nn.init.zeros_(decoder.lm_head.weight)
    tokens = score_documents(decoder, random_split("test", FRAMES), 2).tokens
    kept = tokens.acceptance[0][~torch.from_numpy(tokens.acceptance[0]).isnan().numpy()]
    assert len(kept) == sum(2 * frames for frames in FRAMES)
    assert kept == pytest.approx(1.0)


@pytest.mark.parametrize("context", [None, 7])
def test_nats_alone_are_the_same(build_decoder, random_split, context: int | None) -> None:
    decoder, documents = build_decoder(), random_split("test", FRAMES)
    tokens = score_documents(decoder, documents, 2, context=context).tokens
    alone = token_nats(decoder, documents, tokens_per_batch=50, context=context)
    for index, nats in enumerate(alone):
        assert nats[0] == 0
        assert nats[1:] == pytest.approx(tokens.nats[tokens.document == index], abs=1e-5)


class CountingDecoder(Decoder):
    """Predicts just what one of the n-gram baselines does."""

    def __init__(self, config: DecoderConfig, baselines: NgramBaselines, order: int) -> None:
        super().__init__(replace(config, first_k_dense_replace=3, num_nextn_predict_layers=0))
        self.baselines = baselines
        self.order = order

    def next_token_logits(self, tokens: Tensor) -> tuple[Tensor, list[Routing]]:
        vocabulary = self.baselines.vocabulary
        logits = torch.full((*tokens.shape, vocabulary.size), float("-inf"), dtype=torch.float64)
        for row, place in torch.cartesian_prod(*(torch.arange(size) for size in tokens.shape)).tolist():
            token, q = int(tokens[row, place]), place % vocabulary.n_codebooks
            is_code = token >= len(Special)
            context = (token - len(Special)) % vocabulary.codebook_size if is_code else vocabulary.codebook_size
            probabilities = self.baselines.bigram[q, context] if self.order == 2 else self.baselines.unigram[q]
            first = len(Special) + q * vocabulary.codebook_size
            log_probabilities = torch.from_numpy(probabilities).log()
            logits[row, place, first : first + vocabulary.codebook_size] = log_probabilities[:-1]
            logits[row, place, Special.EOS] = log_probabilities[-1]
        return logits, []


@pytest.mark.parametrize(("order", "name"), [(1, "unigram"), (2, "bigram")])
def test_model_and_baselines_are_scored_on_the_same_targets(
    tiny_config: DecoderConfig, random_split, vocabulary: Vocabulary, order: int, name: str
) -> None:
    train, validation = random_split("train", [20] * 30, seed=1), random_split("validation", [20] * 5, seed=2)
    test = random_split("test", FRAMES, seed=3)
    baselines = NgramBaselines.fit(train, validation)
    expected = baselines.evaluate(test)
    score = score_documents(CountingDecoder(tiny_config, baselines, order), test, 2, tokens_per_batch=60)
    assert score.n_tokens == expected.n_targets
    assert score.loss == pytest.approx(getattr(expected, name), rel=1e-5)
    assert score.by_codebook == pytest.approx([getattr(b, name) for b in expected.by_codebook], rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_scores_as_a_cpu_does(build_decoder, random_split) -> None:
    decoder, test = build_decoder(), random_split("test", FRAMES)
    expected = score_documents(decoder, test, 2)
    score = score_documents(decoder.to("cuda"), test, 2)
    assert score.loss == pytest.approx(expected.loss, abs=1e-5)
    for layer, choices in expected.choices.items():
        assert score.choices[layer].load.tolist() == choices.load.tolist()


def test_segments_routed_within_their_experts_are_counted_as_what_was_chosen(build_decoder, random_split) -> None:
    decoder = build_decoder(num_expert_segments=2, expert_segment_routing="hierarchical", num_segments_per_expert=1)
    score = score_documents(decoder, random_split("test", FRAMES), 2)
    assert [len(choices.load) for choices in score.choices.values()] == [16, 16]
    n_chosen = decoder.config.num_experts_per_tok
    assert [float(choices.load.sum()) for choices in score.choices.values()] == [n_chosen * score.n_tokens] * 2
