"""The table of compliance: every quantity of a model beside what the paper and the card say of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_modules.model.counting import (
    COMPONENTS,
    cache_bytes_per_token,
    checkpoint_bytes,
    forward_flops_per_token,
    training_flops_per_token,
)
from pipeline.architecture.expectations import Expected, exactly, readable
from pipeline.architecture.quantities import SEQUENCE_LENGTH, TOPICS, Counted, Quantity
from pipeline.architecture.subject import Subject

BOTH = "paper and card"
PAPER = "paper"
CARD = "card"
DIFFERS = "differs"
NOT_BUILT = "not built here"


@dataclass(frozen=True)
class Row:
    """One quantity: as the paper has it, as the card has it, as the model has it, and whom the model follows.

    Values are plain, for a program to read; texts are for a reader. `how` tells where the value comes from.
    """

    topic: str
    quantity: str
    paper: Any
    card: Any
    value: Any
    paper_text: str
    card_text: str
    text: str
    verdict: str
    how: str
    section: str


def compliance_rows(model: Subject, paper: Subject, card: Subject) -> list[Row]:
    """Measure every quantity of `model`.

    Args:
        model: what is examined.
        paper: the preset that builds the paper's model; where the paper rounds, its numbers are counted from this.
        card: the same for the card.
    """
    return [
        _row(topic, quantity, model, paper, card) for topic, quantities in TOPICS.items() for quantity in quantities
    ]


def component_rows(model: Subject, paper: Subject, card: Subject) -> list[dict[str, Any]]:
    """Parameters of each component of the three models, and by how much they differ.

    Equal totals prove nothing: the card's comes close to the paper's by wrong components that cancel.
    """
    counts = [subject.counts.by_component for subject in (model, paper, card)]
    rows = []
    for component in (*COMPONENTS, "total"):
        value, of_paper, of_card = (
            sum(count.values()) if component == "total" else count.get(component, 0) for count in counts
        )
        if value or of_paper or of_card:
            rows.append(
                {
                    "component": component.replace("_", " "),
                    "model": value,
                    "paper": of_paper,
                    "card": of_card,
                    "model_minus_paper": value - of_paper,
                    "card_minus_paper": of_card - of_paper,
                }
            )
    return rows


def compliance_report(
    model: Subject, paper: Subject, card: Subject, budgets: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All of it as one plain value: what `output=json` prints, and what the report's section is made from."""
    counts = model.counts
    rows = compliance_rows(model, paper, card)
    return {
        "parameters": {
            "total": counts.total,
            "active": counts.active,
            "active_without_embedding": counts.active_without_embedding,
            "total_over_active": counts.total / counts.active,
            "mtp": counts.mtp,
            "mtp_as_published": counts.mtp_as_published,
            "published": counts.published,
            "routing_bias": counts.routing_bias,
            "by_component": counts.by_component,
        },
        "flops": {
            "sequence_length": SEQUENCE_LENGTH,
            "forward_per_token": forward_flops_per_token(model.decoder, SEQUENCE_LENGTH),
            "training_per_token": training_flops_per_token(model.decoder, SEQUENCE_LENGTH),
        },
        "cache": {
            "bytes_per_token": cache_bytes_per_token(model.config),
            "bytes_per_token_fp8": cache_bytes_per_token(model.config, fp8=True),
        },
        "checkpoint": {
            "bytes_bf16": checkpoint_bytes(model.decoder),
            "bytes_fp8": checkpoint_bytes(model.decoder, fp8=True),
        },
        "rows": [asdict(row) for row in rows],
        "components": component_rows(model, paper, card),
        "differences": {
            "from_paper": [_named(row) for row in rows if row.paper is not None and row.verdict in (CARD, DIFFERS)],
            "from_card": [_named(row) for row in rows if row.card is not None and row.verdict in (PAPER, DIFFERS)],
        },
        "budgets": dict(budgets or {}),
    }


def _named(row: Row) -> dict[str, str]:
    return {
        "topic": row.topic,
        "quantity": row.quantity,
        "paper": row.paper_text,
        "card": row.card_text,
        "model": row.text,
    }


def _row(topic: str, quantity: Quantity, model: Subject, paper: Subject, card: Subject) -> Row:
    value = quantity.measure(model)
    of_paper, of_card = _stated(quantity, quantity.paper, paper), _stated(quantity, quantity.card, card)
    return Row(
        topic=topic,
        quantity=quantity.name,
        paper=None if of_paper is None else of_paper.value,
        card=None if of_card is None else of_card.value,
        value=value,
        paper_text="" if of_paper is None else of_paper.text,
        card_text="" if of_card is None else of_card.text,
        text=readable(value),
        verdict=_verdict(value, of_paper, of_card),
        how=quantity.how,
        section=quantity.section,
    )


def _stated(quantity: Quantity, source: Expected | Counted | None, preset: Subject) -> Expected | None:
    return exactly(quantity.measure(preset)) if isinstance(source, Counted) else source


def _verdict(value: Any, paper: Expected | None, card: Expected | None) -> str:
    if value is None:
        return NOT_BUILT
    follows_paper = paper is not None and paper.accepts(value)
    follows_card = card is not None and card.accepts(value)
    if follows_paper and follows_card:
        return BOTH
    if follows_paper or follows_card:
        return PAPER if follows_paper else CARD
    return DIFFERS
