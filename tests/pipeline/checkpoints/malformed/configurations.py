"""Architectures that are none, or none of the weights beside them, in every file that tells one."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.pipeline.checkpoints.malformed.corpus import CONFIG, Case, Pristine, edit_json, save_training

# By the decoder's names of fields.
CHANGES: dict[str, dict[str, Any]] = {
    "no change": {},
    "a billion layers": {"num_hidden_layers": 10**9, "first_k_dense_replace": 1},
    "a billion prediction modules": {"num_nextn_predict_layers": 10**9},
    "a billion experts": {"n_routed_experts": 10**9},
    "a layer more": {"num_hidden_layers": 3},
    "a width beyond all numbers": {"hidden_size": 2**62},
    "a vocabulary beyond all memory": {"vocab_size": 2**50},
    "heads beyond all numbers": {"num_attention_heads": 2**61},
    "a width of many digits": {"hidden_size": 8 * 10**30},
    "sides that overflow together": {"hidden_size": 2**39, "vocab_size": 2**39},
    "another width": {"hidden_size": 16},
    "a width of text": {"hidden_size": "8"},
    "a width that is a fraction": {"hidden_size": 8.0},
    "layers that are a list": {"num_hidden_layers": [2]},
    "layers that are true": {"num_hidden_layers": True},
    "no layers": {"num_hidden_layers": 0},
    "negative experts": {"n_routed_experts": -2},
    "no heads": {"num_attention_heads": 0},
    "a scale that is no number": {"routed_scaling_factor": float("nan")},
    "an infinite base of rotation": {"rope_theta": float("inf")},
    "norms of text": {"rms_norm_eps": "small"},
    "an unknown score": {"scoring_func": "__import__('os')"},
    "null for a width": {"hidden_size": None},
    "rotation in a list": {"rope_scaling": [1, 2]},
}
# DeepSeek's inference code calls them by other names; architecture.json has ours.
TOLD_BY = {"huggingface": "config.json", "deepseek": "architecture.json"}


def configurations(pristine: Pristine) -> Iterator[Case]:
    """Every change in every layout that tells its architecture."""
    for name, change in CHANGES.items():
        for layout, file in TOLD_BY.items():

            def write(folder: Path, layout: str = layout, file: str = file, change: dict[str, Any] = change) -> Path:
                path = pristine.put(layout, folder, with_checksums=False)
                edit_json(path / file, lambda values: values.update(change))
                if layout == "huggingface":
                    # Positions are told twice there.
                    edit_json(path / file, lambda values: values.pop("rope_parameters"))
                return path

            yield Case(f"{layout}: {name}", write, is_good=not change)

        def save(folder: Path, change: dict[str, Any] = change) -> Path:
            return save_training(pristine.weights, folder / "trained.ckpt", asdict(CONFIG) | change)

        def save_meta(folder: Path, change: dict[str, Any] = change) -> Path:
            path = pristine.put("distributed", folder, with_checksums=False)
            values = torch.load(path / "meta.pt", weights_only=True)
            values["hyper_parameters"]["decoder"].update(change)
            torch.save(values, path / "meta.pt")
            return path

        yield Case(f"lightning: {name}", save, is_good=not change)
        yield Case(f"distributed: {name}", save_meta, is_good=not change)
    yield from _other_kinds(pristine)


def _other_kinds(pristine: Pristine) -> Iterator[Case]:
    """config.json that is of another kind altogether."""
    texts = {"a list": "[]", "null": "null", "empty": "", "nested without end": '{"a":' * 60_000, "not UTF-8": "\udcff"}
    for layout in TOLD_BY:
        for name, text in texts.items():

            def write(folder: Path, layout: str = layout, text: str = text) -> Path:
                path = pristine.put(layout, folder, with_checksums=False)
                (path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
                return path

            yield Case(f"{layout}: config.json is {name}", write)
    for field, value in {"model_type": "llama", "hidden_act": "gelu", "rope_scaling": {"type": "longrope"}}.items():

        def change(folder: Path, field: str = field, value: Any = value) -> Path:
            path = pristine.put("huggingface", folder, with_checksums=False)
            edit_json(path / "config.json", lambda values: values.update({field: value}))
            return path

        yield Case(f"huggingface: {field} is {value}", change)
