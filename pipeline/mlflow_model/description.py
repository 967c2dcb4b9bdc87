"""What makes a folder an MLflow model: a file that says how it is loaded, what it takes and what it gives.

Written by hand, for MLflow takes seconds to import and would copy the export beside it. Nothing in it is code: the
loader is a module of this package, which has to be installed where the model is loaded.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio.codecs.storage import load_codec
from pipeline.plumbing.files import write_json, write_yaml
from pipeline.provenance.exports import CODEC
from pipeline.tokens.vocabulary import Vocabulary

MLMODEL = "MLmodel"
EXAMPLE = "input_example.json"
LOADER = "pipeline.mlflow_model.speaking"
# Seconds of speech, and how it is drawn; top_k 0 and top_p 1 leave every token in.
PARAMETERS = {"seconds": 5.0, "seed": 0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "echo": False}
_TYPES = {float: "double", int: "long", bool: "boolean"}


def is_speaking(export: Path) -> bool:
    """Whether an export can be heard by itself: only then is it a model that others load."""
    return (export / CODEC).is_dir() and (export / "config.json").is_file()


def describe_export(export: Path) -> None:
    """Make a speaking export an MLflow model: `mlflow.pyfunc.load_model(export)` loads it where it lies."""
    write_description(export, export)


def write_description(folder: Path, export: Path, digest: str | None = None, home: Path | None = None) -> None:
    """Write what makes `folder` an MLflow model.

    Args:
        folder: which becomes a model.
        export: whose files lie there too, or, where a digest is given, that it refers to.
        digest: of the export that has to lie there when a reference is loaded.
        home: where the reference leads, if not to `export`, which may be about to vanish.
    """
    flavor: dict[str, Any] = {
        "loader_module": LOADER,
        # MLflow joins it to the folder of the model, which of a whole path leaves that path.
        "data": "." if digest is None else str((home or export).resolve()),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        # What `load_model(…, model_config=…)` may choose otherwise: MLflow lets it name nothing else.
        "config": {"device": "auto", "digest": digest},
    }
    write_json(folder / EXAMPLE, {"columns": ["tokens"], "data": [[_opening(export)]]})
    write_yaml(
        folder / MLMODEL,
        {
            "flavors": {"python_function": flavor},
            "signature": signature(),
            "saved_input_example_info": {
                "artifact_path": EXAMPLE,
                "type": "dataframe",
                "pandas_orient": "split",
            },
        },
    )


def signature() -> dict[str, str]:
    """What a model takes and gives, in MLflow's notation; a test holds it against MLflow's own."""
    rest = [("sample_rate", {"type": "long"}), ("tokens", _array("long"))]
    inputs, outputs = ([("audio", _array(kind)), *rest] for kind in ("double", "float"))
    parameters = [
        {"name": name, "default": default, "shape": None, "type": _TYPES[type(default)]}
        for name, default in PARAMETERS.items()
    ]
    return {
        "inputs": json.dumps([{**kind, "name": name, "required": False} for name, kind in inputs]),
        "outputs": json.dumps([{**kind, "name": name, "required": True} for name, kind in outputs]),
        "params": json.dumps(parameters),
    }


def _array(kind: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": kind}}


def _opening(export: Path) -> list[int]:
    """The tokens of one frame: the first code of every codebook."""
    codec = load_codec(export / CODEC)
    vocabulary = Vocabulary(codec.n_codebooks, codec.codebook_size)
    return [int(token) for token in vocabulary.codes_to_tokens(np.zeros((1, codec.n_codebooks), np.int64))]
