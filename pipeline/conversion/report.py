"""What conversion_report.json tells."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.checkpoints.conversion import Conversion
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.conversion.check import FAIL, PASS, SKIPPED, WARN
from pipeline.conversion.configuration import ConversionSettings
from pipeline.conversion.verdict import Verdict


def conversion_report(
    source: CheckpointSource,
    conversion: Conversion,
    verdict: Verdict,
    settings: ConversionSettings,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything that a conversion did and found, as plain values."""
    return {
        "verdict": {"status": verdict.status, "sentence": verdict.sentence, "accepted": settings.accept},
        "checks": [asdict(check) for check in verdict.checks],
        "source": str(source.path),
        "source_layout": source.layout,
        "weights": source.weights,
        "layout": conversion.layout,
        "dtype": settings.dtype,
        "step": source.step,
        "parameters": sum(math.prod(stored.shape) for stored in source.tensors.values()),
        "tensors": conversion.n_tensors,
        "bytes": conversion.n_bytes,
        "files": [asdict(file) for file in conversion.files],
        "repaired": [list(pair) for pair in source.renamed],
        "renamed": [list(pair) for pair in conversion.renamed],
        "missing": list(source.missing),
        "unexpected": list(source.unexpected),
        "initialised": list(source.initialised),
        "dropped": list(conversion.dropped),
        "left_behind": list(source.left_behind),
        "quantisation": {name: asdict(error) for name, error in conversion.quantisation.items()},
        "notes": [*source.notes, *source.doubts, *conversion.notes, *notes],
    }


def headline_metrics(verdict: Verdict, conversion: Conversion) -> dict[str, float]:
    """The numbers that runs are compared by."""
    found = {check.name: check.numbers for check in verdict.checks}
    chosen = {
        "loss": ("held-out loss", "loss"),
        "divergence": ("logits", "divergence"),
        "flatness": ("sound", "flatness"),
        "fd_over_random": ("sound", "fd_over_random"),
        "largest_relative_error": ("equal to source", "largest_relative_error"),
        "median_edge_ratio": ("weight statistics", "median_edge_ratio"),
    }
    counts = {status: sum(check.status == status for check in verdict.checks) for status in (PASS, WARN, FAIL, SKIPPED)}
    return {
        "conversion/bytes": float(conversion.n_bytes),
        **{f"conversion/checks_{status}": float(count) for status, count in counts.items()},
        **{
            f"conversion/{name}": float(found[check][number])
            for name, (check, number) in chosen.items()
            if number in found.get(check, {})
        },
    }
