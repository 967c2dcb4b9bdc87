"""A plan as text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.planning.report import PARTS

N_LAYOUTS_SHOWN = 12
GIB = 2**30
LABELS = {
    "parameters": "parameters, FP32, this rank's",
    "working_weights": "their BF16 copies that compute",
    "average": "their running mean",
    "gradients": "gradients",
    "optimizer": "optimizer's moments",
    "activations": "activations kept",
    "logits": "logits and losses",
    "gathered": "gathered parameters",
    "reduction": "gradients under reduction",
    "temporary": "other temporary tensors",
    "workspaces": "cuBLAS workspaces",
    "fragmentation": "allocator's fragmentation",
    "context": "CUDA, NCCL, kernels",
    "total": "total",
}


def terminal_text(report: Mapping[str, Any]) -> str:
    """All tables of a report, one below the other."""
    tables = (_head, _memory, _recompute, _communication, _sweep, _verdict)
    return "\n\n".join(table(report) for table in tables)


def _head(report: Mapping[str, Any]) -> str:
    layout, training, parameters = report["layout"], report["training"], report["parameters"]
    readers = _shared(layout, "for every {} ranks") or "a rank"
    return "\n".join(
        [
            f"{layout['world_size']} ranks, {layout['gpus_per_node']} a node: dp_replicate {layout['dp_replicate']} × "
            f"dp_shard {layout['dp_shard']} × {_shared(layout, 'cp {} × ')}ep {layout['ep']}",
            f"parameters: {parameters['total']:,}, and {parameters['mtp']:,} of multi-token prediction; "
            f"this rank keeps {parameters['local']:,}",
            f"{training['precision']}, {training['batch_size']} × {training['sequence_length']} tokens {readers} and "
            f"micro-batch, {training['windows_per_step']:,} windows of {training['tokens_per_step']:,} tokens a step, "
            f"{training['optimizer']} with moments in {training['moments']}",
        ]
    )


def _shared(layout: Mapping[str, Any], text: str) -> str:
    """Over how many ranks windows are spread, if over any."""
    return text.format(layout["cp"]) if layout["cp"] > 1 else ""


def _memory(report: Mapping[str, Any]) -> str:
    memory = report["memory"]
    order = [*PARTS, "fragmentation", "context", "total"]
    rows = [(LABELS[name], f"{memory[f'{name}_gib']:.2f}") for name in order]
    layout = report["layout"]
    reduces = ", gradients summed over ranks every micro-batch" if layout["reduce_every_micro_batch"] else ""
    return "\n".join(
        [
            f"memory in GiB, with recompute {layout['recompute']}{reduces}, at its fullest: {memory['fullest']}",
            *_aligned(rows),
        ]
    )


def _recompute(report: Mapping[str, Any]) -> str:
    header = ("GiB of this layout, by recompute", "activations kept", "total", "in the host's memory")
    rows = [
        (kind, *(f"{memory[f'{name}_gib']:.2f}" for name in ("activations", "total", "host")))
        for kind, memory in report["by_recompute"].items()
    ]
    return "\n".join(_aligned([header, *rows]))


def _communication(report: Mapping[str, Any]) -> str:
    header = ("GiB a rank receives in a step", "within the node", "from other nodes")
    rows = [
        (
            kind.removesuffix("_bytes").replace("_", " "),
            f"{parts['intra_node'] / GIB:.2f}",
            f"{parts['inter_node'] / GIB:.2f}",
        )
        for kind, parts in report["communication"].items()
    ]
    return "\n".join(_aligned([header, *rows]))


def _sweep(report: Mapping[str, Any]) -> str:
    header = (
        "layouts, best first: dp_replicate",
        *("dp_shard", "ep", "recompute", "gradients reduced", "GiB", "fits", "GiB from other nodes"),
    )
    rows = [
        (
            str(row["dp_replicate"]),
            str(row["dp_shard"]),
            str(row["ep"]),
            row["recompute"],
            "every micro-batch" if row["reduce_every_micro_batch"] else "once",
            f"{'over ' if row['is_lower_bound'] else ''}{row['total_gib']:.1f}",
            "yes" if row["fits"] else "no",
            f"{row['inter_node_gib']:.1f}",
        )
        for row in report["sweep"][:N_LAYOUTS_SHOWN]
    ]
    lines = _aligned([header, *rows])
    if left := len(report["sweep"]) - len(rows):
        lines.append(f"… and {left} more with output=json")
    return "\n".join(lines)


def _verdict(report: Mapping[str, Any]) -> str:
    best, memory = report["recommended"], report["memory"]
    fits = "fits" if report["fits"] else "does not fit"
    return "\n".join(
        [
            f"This layout {fits} {report['gpu']['name']} ({memory['available_gib']:.1f} GiB).",
            f"Recommended: strategy.dp_replicate={best['dp_replicate']} strategy.dp_shard={best['dp_shard']} "
            f"{_shared(best, 'strategy.cp={} ')}strategy.ep={best['ep']} trainer.recompute={best['recompute']} "
            f"strategy.reduce_every_micro_batch={str(best['reduce_every_micro_batch']).lower()} "
            f"trainer.accumulate_grad_batches={best['accumulate_grad_batches']}",
            report["reason"],
        ]
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, the first to the left and all others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
