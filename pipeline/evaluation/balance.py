"""How evenly the experts are used on held-out speech, and whether they specialise."""

from typing import Any

from torch import Tensor

from lightning_modules.balance import balance_metrics
from lightning_modules.model.router import HierarchicalRouter, Router
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.routing_counts import RoutingCounts
from pipeline.evaluation.specialisation import association, pair_rows, preference_rows, speaker_association
from pipeline.evaluation.subject import Subject


def balance(subject: Subject) -> Findings:
    """The load of every expert over the test split, by codebook and by speaker, and which go together."""
    choices, decoder = subject.score.choices, subject.decoder
    speakers = [origin.speaker for origin in subject.origins]
    loads = {layer: counts.load for layer, counts in choices.items()}
    metrics = {f"eval/{name}": value for name, value in balance_metrics(loads).items()}
    biases = {
        layer: biases_of(router).tolist()
        for layer, router in zip(decoder.expert_layers(), decoder.routers(), strict=True)
    }
    rows: list[dict[str, Any]] = []
    preferences: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for layer, counts in choices.items():
        rows += load_rows(layer, counts, biases[layer])
        pairs += pair_rows(layer, counts)
        metrics[f"eval/moe/codebook_information/layer_{layer}"] = association(counts.by_codebook)
        codebooks = [str(codebook) for codebook in range(len(counts.by_codebook))]
        preferences += preference_rows(layer, "codebook", codebooks, counts.by_codebook)
        if len(set(speakers)) > 1:
            told = speaker_association(counts, speakers)
            metrics[f"eval/moe/speaker_information/layer_{layer}"] = told.share
            metrics[f"eval/moe/speaker_information_by_chance/layer_{layer}"] = told.chance
            preferences += preference_rows(layer, "speaker", *counts.by_speaker(speakers))
    tables = {"expert_load.csv": rows, "expert_preferences.csv": preferences, "expert_pairs.csv": pairs}
    return Findings(metrics, tables)


def load_rows(layer: int, counts: RoutingCounts, biases: list[float]) -> list[dict[str, Any]]:
    """Rows for a table: each expert's share of the layer's choices, and the bias of its routing score."""
    shares = (counts.load / counts.load.sum()).tolist()
    return [
        {"layer": layer, "expert": expert, "load": share, "bias": bias}
        for expert, (share, bias) in enumerate(zip(shares, biases, strict=True))
    ]


def biases_of(router: Router) -> Tensor:
    """What corrects the scores of experts, or of their segments where they are split, as choices count them [E]."""
    return router.segment_bias if isinstance(router, HierarchicalRouter) else router.e_score_correction_bias
