"""Is everything there? What the source lacked, and what of it has no place in the target."""

from collections.abc import Sequence

from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.checkpoints.tensor_summary import described
from pipeline.conversion.check import PASS, WARN, Check, listed

NAME = "completeness"


def check_completeness(source: CheckpointSource) -> Check:
    """Weights that were missing, and that the caller allowed by name, are random now: they never pass in silence."""
    numbers = {"missing": len(source.missing), "unexpected": len(source.unexpected)}
    numbers |= {"renamed": len(source.renamed), "initialised": len(source.initialised)}
    if source.missing:
        return Check(NAME, WARN, f"{missing_sentence(source.missing)}: they are random", numbers)
    if source.unexpected:
        sentence = f"the source holds {listed(list(source.unexpected))}, which the architecture has no place for"
        return Check(NAME, WARN, sentence, numbers)
    repaired = [f"{len(source.renamed)} renamed"] if source.renamed else []
    repaired += [f"{len(source.initialised)} statistics begun anew"] if source.initialised else []
    return Check(NAME, PASS, ", ".join(["no weight is missing", *repaired]), numbers)


def missing_sentence(missing: Sequence[str]) -> str:
    """Such as "output projections missing in layers 0-2"."""
    return described(missing, "missing")
