"""Packages that a peer imports and nothing here runs: they need not be there."""

import sys
from importlib.util import find_spec
from unittest.mock import MagicMock

# Of torchtitan: its data loaders and its metrics.
UNUSED = {"datasets": ("datasets", "datasets.distributed"), "tensorboard": ("torch.utils.tensorboard",)}


def stand_in() -> None:
    """Let imports of those that are absent succeed."""
    for package, modules in UNUSED.items():
        if find_spec(package) is None:
            sys.modules |= {module: MagicMock() for module in modules}
