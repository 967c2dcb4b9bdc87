"""The scripts of `install/`, which is no package: they run before anything is installed."""

import importlib.util
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[2]


def load_script(name: str) -> ModuleType:
    """The script `install/{name}.py` as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "install" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
