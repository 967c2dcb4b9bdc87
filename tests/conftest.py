import importlib.util
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def fsdd_root() -> Path:
    """The Free Spoken Digit Dataset: real human speech, used where it lies beside the checkout."""
    root = Path(os.environ.get("FSDD_ROOT", REPOSITORY.parent / "shared" / "data" / "fsdd"))
    if not (root / "recordings").is_dir():
        pytest.skip("the FSDD recordings are not on this machine (set FSDD_ROOT)")
    return root


@pytest.fixture(scope="session")
def espeak_available() -> None:
    if importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("espeakng-loader is not installed")
