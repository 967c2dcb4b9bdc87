"""Is everything there? What the source lacked, and what of it has no place in the target."""

from collections.abc import Sequence

from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.checkpoints.tensor_summary import described
from pipeline.conversion.check import FAIL, PASS, WARN, Check, listed

NAME = "completeness"


def check_completeness(source: CheckpointSource, allowed: Sequence[str] = ()) -> Check:
    """Weights that were missing are random now: they never pass in silence.

    Args:
        source: of the conversion.
        allowed: what may be missing. Weights that are named there, letter by letter, are a warning; those that a glob
            has let through fail, since nobody has said that they know of each.
    """
    numbers = {"missing": len(source.missing), "unexpected": len(source.unexpected)}
    numbers |= {"renamed": len(source.renamed), "initialised": len(source.initialised)}
    if unnamed := [name for name in source.missing if name not in allowed]:
        sentence = f"{missing_sentence(unnamed)}: they are random, and allow_missing does not name them one by one"
        return Check(NAME, FAIL, sentence, numbers)
    if source.missing:
        return Check(NAME, WARN, f"{missing_sentence(source.missing)}: they are random", numbers)
    if source.unexpected:
        sentence = f"the source holds {listed(list(source.unexpected))}, which the architecture has no place for"
        return Check(NAME, WARN, sentence, numbers)
    if source.doubts:
        return Check(NAME, WARN, " ".join(source.doubts).removesuffix("."), numbers)
    repaired = [f"{len(source.renamed)} renamed"] if source.renamed else []
    repaired += [f"{len(source.initialised)} statistics begun anew"] if source.initialised else []
    found = [", ".join(["no weight is missing", *repaired]), *(note.removesuffix(".") for note in source.notes)]
    return Check(NAME, PASS, "; ".join(found), numbers)


def missing_sentence(missing: Sequence[str]) -> str:
    """Such as "output projections missing in layers 0-2"."""
    return described(missing, "missing")
