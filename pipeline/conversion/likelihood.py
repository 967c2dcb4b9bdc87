"""Does the target predict held-out speech better than counting does?"""

import math

from lightning_modules.model.decoder import Decoder
from pipeline.conversion.check import FAIL, PASS, WARN, Check
from pipeline.conversion.held_out import HeldOut
from pipeline.evaluation.scoring import score_documents
from pipeline.tokens.ngram import Losses

NAME = "held-out loss"


def check_likelihood(
    decoder: Decoder, held_out: HeldOut, is_trained: bool, has_random_parts: bool, context: int | None = None
) -> Check:
    """Score held-out speech, and hold the loss against what counting predicts of the same tokens (see `judge`)."""
    n_codebooks = held_out.documents.vocabulary.n_codebooks
    loss = score_documents(decoder, held_out.documents, n_codebooks, context=context).loss
    return judge(loss, held_out.baselines.evaluate(held_out.documents), is_trained, has_random_parts)


def judge(loss: float, baseline: Losses, is_trained: bool, has_random_parts: bool) -> Check:
    """Say what a held-out loss means. What is asked of it depends on what the weights look like:

    - below the bigram: passes;
    - worse than the unigram: fails if the weights are trained, for then they were put together wrongly;
    - between the two: fails if parts are random among trained ones, and warns otherwise. A decoder with random output
      projections still has its embedding, its experts and its head, which know how often codes occur: it beats the
      unigram easily. What it has lost is the past, and with that the bigram.

    A model that has hardly been trained can do no better: it gets a warning.

    Args:
        loss: of the target, in nats a token.
        baseline: those of counting, on the same tokens.
        is_trained: whether most of its matrices look trained.
        has_random_parts: whether some of its weights were missing, or look random beside trained ones.
    """
    numbers = {"loss": loss, "unigram": baseline.unigram, "bigram": baseline.bigram, "tokens": baseline.n_targets}
    if loss < baseline.bigram:
        return Check(NAME, PASS, f"{loss:.2f} nats a token, below the bigram's {baseline.bigram:.2f}", numbers)
    beats_unigram = loss < baseline.unigram
    rival = f"the bigram's {baseline.bigram:.2f}" if beats_unigram else f"the unigram's {baseline.unigram:.2f}"
    fails = math.isnan(loss) or has_random_parts or (is_trained and not beats_unigram)
    return Check(NAME, FAIL if fails else WARN, f"{loss:.2f} nats a token, no better than {rival}", numbers)
