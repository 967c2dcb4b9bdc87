"""What the page was rendered with."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "torchaudio", "lightning", "numpy", "scikit-learn", "hydra-core", "dvc", "mlflow", "transformers")


def environment() -> dict[str, str]:
    """Return the platform and the versions of Python and of the packages that shape results."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
