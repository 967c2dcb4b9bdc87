"""Evaluations as the stage evaluate writes them, of models that nobody has trained: as good or bad as is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
from safetensors.numpy import save_file

from pipeline.audio.measures.frechet import N_FEATURES, FrechetStatistics
from pipeline.plumbing.files import write_csv, write_json, write_yaml
from pipeline.provenance.identity import IDENTITY, Identity, TrainingIdentity, write_identity
from pipeline.statistics.frechet import ClipMoments

N_UTTERANCES, N_CLIPS, N_FRAMES = 40, 16, 30
RATE = 8000
SETTINGS: dict[str, Any] = {
    "seed": 1, "device": "cpu", "batch_size": 4, "n_prompted": N_CLIPS, "n_unprompted": N_CLIPS,
    "prompt_seconds": 0.5, "seconds": 1.5, "temperature": 0.9, "top_k": None, "top_p": None,
}  # fmt: skip
KINDS = ("continuation", "unprompted")


@dataclass(frozen=True)
class Model:
    """What an evaluation says of a model.

    Attributes:
        loss: nats a token, on average.
        shift: how far the sound of its clips lies from that of real speech, in standard deviations.
        accuracy: share of minimal pairs that it gets right.
        seed: of what is a matter of luck.
        checkpoint: what its training is told from others by.
    """

    loss: float = 3.0
    shift: float = 1.0
    accuracy: float = 0.7
    seed: int = 0
    checkpoint: str = "0123456789abcdef"


def write_evaluation_of(
    model: Model,
    folder: Path,
    data: str = "data",
    recordings: str = "recordings",
    settings: dict[str, Any] | None = None,
    sounds: bool = False,
    speakers: str = "known",
    judges: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Write the folder of an evaluation: utterances, prompts and controls are the same for all models.

    `speakers` are known to the models or new, and `judges` say by how much they like its clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared, own = np.random.default_rng(0), np.random.default_rng(model.seed + 1)
    write_csv(folder / "utterances.csv", _utterances(model, shared, own))
    write_csv(folder / "minimal_pairs.csv", _minimal_pairs(model, own))
    write_csv(folder / "clips.csv", [_clip(kind, i, model, own) for kind in KINDS for i in range(N_CLIPS)])
    measures = {"overall": {"heading": "Opinion", "better": "higher", "meaning": ""}}
    present = {judge: {"origin": "", "measures": measures} for judge in judges}
    write_json(folder / "judges.json", {"judges": present, "skipped": {}})
    write_csv(folder / "judgements.csv", [row for judge in judges for row in _judgements(judge, judges[judge], own)])
    save_file(_moments(model, shared, own), folder / "clips.safetensors")
    write_csv(folder / "comparison.csv", [{"signal": "generated"}])
    references = {f"audio/{name}_reference": 0.25 for name in ("flatness", "mel_flux_db", "modulation_depth")}
    write_json(folder / "metrics.json", {"eval/loss": model.loss, **references})
    write_json(folder / "intervals.json", {"level": 0.95, "speakers": speakers})
    write_json(folder / "audio.json", _sounds(folder / "audio", own) if sounds else [])
    write_yaml(folder / "config.yaml", {"evaluate": settings or SETTINGS})
    training = TrainingIdentity(data, "codec", "settings", "configuration", model.checkpoint, 256)
    write_identity(folder / IDENTITY, Identity(training, data=data, recordings=recordings))
    return folder


def _utterances(model: Model, shared: np.random.Generator, own: np.random.Generator) -> list[dict[str, Any]]:
    n_tokens = shared.integers(100, 400, N_UTTERANCES)
    difficulty = shared.normal(0, 0.3, N_UTTERANCES)
    losses = model.loss + difficulty + own.normal(0, 0.05, N_UTTERANCES)
    return [
        {
            "document": i,
            "utterance": f"utterance {i}",
            "speaker": f"speaker {i % 6}",
            "seconds": n / 200,
            "n_tokens": n,
            "nats": n * loss,
        }
        for i, (n, loss) in enumerate(zip(n_tokens, losses, strict=True))
    ]


def _minimal_pairs(model: Model, own: np.random.Generator) -> list[dict[str, Any]]:
    right = own.random(N_UTTERANCES) < model.accuracy
    return [
        {
            "task": "reversed",
            "document": i,
            "speaker": f"speaker {i % 6}",
            "nats_true": 10.0,
            "nats_false": 11.0 if r else 9.0,
        }
        for i, r in enumerate(right)
    ]


def _clip(kind: str, number: int, model: Model, own: np.random.Generator) -> dict[str, Any]:
    return {
        "kind": kind,
        "number": number,
        "document": number if kind == "continuation" else "",
        "speaker": f"speaker {number % 6}" if kind == "continuation" else "",
        "seed": 1000 + number,
        "seconds": 1.0,
        "flatness": 0.25 * np.exp(0.2 * own.normal() + 0.1 * model.shift),
        "mel_flux_db": 0.25 + 0.1 * model.shift + 0.05 * own.normal(),
        "modulation_depth": 0.25 + 0.1 * model.shift + 0.05 * own.normal(),
        "n_frames": N_FRAMES,
    }


def _judgements(judge: str, opinion: float, own: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {"judge": judge, "measure": "overall", "signal": kind, "number": i, "value": opinion + 0.1 * own.normal()}
        for kind in KINDS
        for i in range(N_CLIPS)
    ]


def _moments(model: Model, shared: np.random.Generator, own: np.random.Generator) -> dict[str, np.ndarray]:
    tensors = {}
    for kind in KINDS:
        clips = ClipMoments.of(
            [_statistics(own.normal(model.shift, 1, (N_FRAMES, N_FEATURES))) for _ in range(N_CLIPS)]
        )
        tensors |= {f"{kind}/count": clips.counts, f"{kind}/mean": clips.means, f"{kind}/scatter": clips.scatters}
    reference = _statistics(shared.normal(0, 1, (500, N_FEATURES)))
    for name in ("train_codec", "train_real"):
        tensors |= {f"reference/{name}/{key}": value for key, value in reference.to_tensors().items()}
    return tensors


def _statistics(features: np.ndarray) -> FrechetStatistics:
    mean = features.mean(axis=0)
    deviations = features - mean
    count = np.array([len(features)], dtype=np.int64)
    return FrechetStatistics.from_tensors({"count": count, "mean": mean, "scatter": deviations.T @ deviations})


def _sounds(folder: Path, own: np.random.Generator) -> list[dict[str, Any]]:
    """Two short clips of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind in ("real", "codec", *KINDS):
        for number in range(2):
            name = f"{kind}_{number:02d}.wav"
            soundfile.write(folder / name, 0.1 * own.normal(size=RATE // 2), RATE, subtype="PCM_16")
            prompt = 0.1 if kind == "continuation" else 0.0
            rows.append(
                {"file": name, "kind": kind, "number": number, "source": "", "prompt_seconds": prompt, "flatness": 0.3}
            )
    return rows
