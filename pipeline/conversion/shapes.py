"""Has the target every tensor of the source, in its shape?"""

from collections.abc import Sequence

from pipeline.checkpoints.names import in_prediction_module
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.conversion.check import FAIL, PASS, Check, listed

NAME = "shapes"


def check_shapes(source: CheckpointSource, target: CheckpointSource, drop: Sequence[str]) -> Check:
    """Compare names and shapes, apart from what was dropped on purpose."""
    expected = {
        name: stored
        for name, stored in source.all_tensors.items()
        if not (name.endswith("expert_loads") and "expert_loads" in drop)
        and not (in_prediction_module(name, source.config) and "mtp" in drop)
    }
    tensors = target.all_tensors
    absent = [name for name in expected if name not in tensors]
    added = [name for name in tensors if name not in source.all_tensors]
    changed = [
        f"{name} {list(stored.shape)} → {list(tensors[name].shape)}"
        for name, stored in expected.items()
        if name in tensors and tensors[name].shape != stored.shape
    ]
    numbers = {"tensors": len(tensors), "absent": len(absent), "added": len(added), "changed": len(changed)}
    for problem, names in (("lacks", absent), ("has besides", added), ("has in another shape", changed)):
        if names:
            return Check(NAME, FAIL, f"the target {problem} {listed(names)}", numbers)
    return Check(NAME, PASS, f"{len(tensors):,} tensors, all in their shapes", numbers)
