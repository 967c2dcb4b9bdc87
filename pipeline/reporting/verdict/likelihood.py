"""What the model finds likely: the strongest evidence, for it asks about speech and not about how it sounds."""

import math
from collections.abc import Mapping

from pipeline.reporting.formatting import number, percent
from pipeline.reporting.pairs import CHANCE, TASKS, accuracy
from pipeline.reporting.verdict.judgement import Grade, Judgement, read_interval, told

PAIRS, LOSS = "Minimal pairs", "Test loss"


def judge_pairs(metrics: Mapping[str, float]) -> Judgement:
    """Count the kinds of wrong speech that the model finds less likely than the true, surely and better than a bigram.

    Chance and the bigram have to lie below the whole interval. Most kinds have to be told: some can be by luck of an
    untrained network, which takes what it has just heard for likelier.
    """
    asked = {task: found for task in TASKS if (found := accuracy(metrics, task)) and not math.isnan(found["value"])}
    if not asked:
        return Judgement(PAIRS, Grade.UNMEASURED, "No minimal pairs were asked.")
    listed = ", ".join(f"{TASKS[task][0].lower()} {percent(found['value'])}" for task, found in asked.items())
    rest = f"({listed}; chance is {percent(CHANCE)})"
    if all(math.isnan(found["low"]) for found in asked.values()):
        return Judgement(PAIRS, Grade.UNMEASURED, f"Held-out utterances are too few for minimal pairs to tell {rest}.")
    certain = {task: found for task, found in asked.items() if is_certain(found)}
    if not certain:
        sentence = f"The model tells no kind of wrong speech from true beyond chance and a bigram {rest}."
        return Judgement(PAIRS, Grade.FAILED, sentence)
    sentence = f"The model tells {len(certain)} of {len(asked)} kinds of wrong speech from true {rest}"
    if 2 * len(certain) > len(asked):
        return Judgement(PAIRS, Grade.PASSED, f"{sentence}.")
    return Judgement(PAIRS, Grade.WEAK, f"{sentence}: of the others, no more than chance or a bigram.")


def is_certain(found: Mapping[str, float]) -> bool:
    """Whether a whole interval of accuracies lies above chance, and above what the bigram reaches."""
    return found["low"] > CHANCE and not found["low"] <= found["bigram"]


def judge_loss(metrics: Mapping[str, float]) -> Judgement:
    """Place the test loss, its upper bound that is, among what guessing and counting reach."""
    if "eval/loss" not in metrics:
        return Judgement(LOSS, Grade.UNMEASURED, "The test loss was not measured.")
    loss = read_interval(metrics, "eval/loss")
    if not math.isfinite(loss.value):
        sentence = "The test loss is not a number: the model computes nothing that can be used."
        return Judgement(LOSS, Grade.FAILED, sentence)
    uniform, unigram, bigram = (metrics.get(f"eval/loss_{name}", math.nan) for name in ("uniform", "unigram", "bigram"))
    measured = f"The test loss is {told(loss, 4)} nats per token"
    # A comparison with an absent baseline (NaN) is false, so such a baseline decides nothing.
    if loss.value > uniform:
        return Judgement(LOSS, Grade.FAILED, f"{measured}, worse than guessing ({number(uniform, 4)}).")
    for baseline, grade, name in (
        (unigram, Grade.FAILED, "counting how often each token occurs"),
        (uniform, Grade.FAILED, "guessing"),
        (bigram, Grade.WEAK, "counting pairs of tokens"),
    ):
        if loss.high >= baseline:
            how = "no better than" if loss.value >= baseline else "not certainly better than"
            return Judgement(LOSS, grade, f"{measured}, {how} {name} ({number(baseline, 4)}).")
    if math.isnan(bigram):
        return Judgement(LOSS, Grade.UNMEASURED, f"{measured}, with no baseline to hold it against.")
    return Judgement(
        LOSS,
        Grade.PASSED,
        f"{measured}, {number(bigram - loss.value)} below counting pairs of tokens ({number(bigram, 4)}): "
        "the model uses more than the previous token.",
    )
