"""Many tensors in few words."""

import re
from collections.abc import Iterable, Sequence

KINDS = {
    "self_attn.o_proj": "output projections",
    "self_attn.q_a_proj": "query compressions",
    "self_attn.q_b_proj": "query projections",
    "self_attn.q_proj": "query projections",
    "self_attn.kv_a_proj_with_mqa": "latent compressions",
    "self_attn.kv_b_proj": "key and value projections",
    "mlp.gate.e_score_correction_bias": "routing biases",
    "mlp.gate.": "routers",
    "mlp.experts": "experts",
    "mlp.shared_experts": "shared experts",
    "mlp.": "feed-forward projections",
    "norm": "norms",
}


def described(names: Sequence[str], state: str) -> str:
    """Such as "output projections missing in layers 0-2, norms missing in layer 1".

    Args:
        names: published names of tensors.
        state: what they are.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(_kind(name), []).append(name)
    return ", ".join(f"{kind} {state}{_where(members)}" for kind, members in kinds.items())


def _kind(name: str) -> str:
    return next((words for part, words in KINDS.items() if part in name), name)


def _where(names: Iterable[str]) -> str:
    layers = sorted({int(layer[1]) for name in names if (layer := re.match(r"model\.layers\.(\d+)\.", name))})
    if not layers:
        return ""
    return f" in layer{'s' if len(layers) > 1 else ''} {_ranges(layers)}"


def _ranges(numbers: Sequence[int]) -> str:
    """Such as "0-2, 5" of 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
