"""What an evaluation comes to in numbers and tables."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import SpeechMeasures
from pipeline.evaluation.scoring import Score
from pipeline.plumbing.files import write_csv
from pipeline.tokens.ngram import BaselineLosses
from pipeline.tokens.rate import bits_per_second

log = logging.getLogger(__name__)

# What experiments are compared by.
HEADLINE = ("eval/loss", "eval/bits_per_second", "audio/fd", "audio/flatness")


def loss_metrics(score: Score, baseline: BaselineLosses, seconds: float) -> dict[str, float]:
    """The test loss, overall and by codebook, beside what counting can predict."""
    return {
        "eval/loss": score.loss,
        "eval/perplexity": math.exp(score.loss),
        "eval/loss_uniform": baseline.uniform,
        "eval/loss_unigram": baseline.unigram,
        "eval/loss_bigram": baseline.bigram,
        "eval/bits_per_second": bits_per_second(score.loss, score.n_tokens, seconds),
        **{f"eval/loss/codebook_{q}": loss for q, loss in enumerate(score.by_codebook)},
    }


def audio_metrics(rows: Mapping[str, Mapping[str, Any]], real: SpeechMeasures, gate: FlatnessGate) -> dict[str, float]:
    """The measures of generated speech, each beside real speech's, and the gate's verdict."""
    generated = rows["generated"]
    verdict = gate.judge(generated["flatness"], real.flatness)
    log.info("Flatness gate %s: %s.", "passed" if verdict.passed else "failed", verdict.reason)
    return {
        "audio/flatness": generated["flatness"],
        "audio/flatness_db": generated["flatness_db"],
        "audio/flatness_reference": real.flatness,
        "audio/flatness_gate": int(verdict.passed),
        "audio/fd": generated["fd"],
        "audio/fd_reference": rows["codec"]["fd"],
        "audio/fd_unigram_random": rows["unigram_random"]["fd"],
        "audio/fd_undecoded": generated["fd_undecoded"],
        "audio/fd_undecoded_reference": rows["codec"]["fd_undecoded"],
        "audio/mel_flux_db": generated["mel_flux_db"],
        "audio/mel_flux_db_reference": real.mel_flux_db,
        "audio/modulation_depth": generated["modulation_depth"],
        "audio/modulation_depth_reference": real.modulation_depth,
    }


def write_tables(folder: Path, score: Score, baseline: BaselineLosses, comparison: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables that plots and the report are drawn from."""
    write_csv(folder / "comparison.csv", comparison)
    write_csv(
        folder / "loss_by_codebook.csv",
        [
            {"codebook": q, "model": loss, "uniform": b.uniform, "unigram": b.unigram, "bigram": b.bigram}
            for q, (loss, b) in enumerate(zip(score.by_codebook, baseline.by_codebook, strict=True))
        ],
    )
    write_csv(
        folder / "expert_load.csv",
        [
            {"layer": layer, "expert": expert, "load": float(value / load.sum())}
            for layer, load in score.expert_load.items()
            for expert, value in enumerate(load)
        ],
    )
