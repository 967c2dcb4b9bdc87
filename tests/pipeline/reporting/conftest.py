"""A tree of outputs as the other stages write them, with speech-like audio."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.plumbing.files import write_csv, write_json
from pipeline.reporting.data import ReportPaths
from pipeline.tracking.history import write_history_tables

SAMPLE_RATE = 8000
LAYERS = (1, 2, 3)
N_EXPERTS = 8


def speech_like(seconds: float, rng: np.random.Generator, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Harmonics of a gliding pitch under three moving formants, in syllables with hissing onsets and pauses."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    points = np.linspace(0, seconds, max(3, int(4 * seconds)))

    def glide(low: float, high: float) -> np.ndarray:
        return np.interp(time, points, rng.uniform(low, high, len(points)))

    pitch = glide(95, 170)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formants = ((glide(300, 800), 90), (glide(900, 2200), 140), (glide(2300, 3100), 200))
    voiced = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        gain = sum(0.7**i / (1 + ((frequency - centre) / width) ** 2) for i, (centre, width) in enumerate(formants))
        voiced += np.where(frequency < sample_rate / 2, gain * np.sin(harmonic * phase), 0.0)
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * time + rng.uniform(0, 6)), 0, None) ** 0.6
    hiss = np.diff(rng.standard_normal(len(time)), prepend=0.0) * np.clip(np.diff(syllables, prepend=0) * 900, 0, 1)
    audio = syllables * voiced + 0.25 * hiss + 1e-4 * rng.standard_normal(len(time))
    return (0.3 * audio / np.abs(audio).max()).astype(np.float32)


def build_outputs(root: Path, seconds: float = 1.5, n_clips: int = 3) -> ReportPaths:
    """Write everything the report reads under `root`."""
    rng = np.random.default_rng(7)
    paths = ReportPaths.under(root / "prepared", root / "outputs")
    write_json(paths.prepared / "data_card.json", data_card())
    write_json(
        paths.train / "run.json", {"run_id": "3f2a9c", "experiment": "melisma", "tracking_uri": "sqlite:///x.db"}
    )
    write_history_tables(history(rng), paths.train)
    write_json(paths.export / "conversion_report.json", conversion_report())
    write_json(paths.evaluate / "metrics.json", metrics())
    write_csv(paths.evaluate / "comparison.csv", comparison())
    write_csv(paths.evaluate / "loss_by_codebook.csv", loss_by_codebook())
    write_csv(paths.evaluate / "expert_load.csv", expert_load())
    write_json(paths.evaluate / "audio.json", write_audio(paths.evaluate / "audio", rng, seconds, n_clips))
    return paths


def write_audio(folder: Path, rng: np.random.Generator, seconds: float, n_clips: int) -> list[dict]:
    folder.mkdir(parents=True)
    entries = []
    for kind in ("continuation", "unprompted", "codec", "real"):
        for i in range(n_clips):
            file = f"{kind}_{i:02d}.wav"
            soundfile.write(folder / file, speech_like(seconds, rng), SAMPLE_RATE, subtype="PCM_16")
            entries.append(
                {
                    "file": file,
                    "kind": kind,
                    "number": i,
                    "source": {"real": f"en-us/sentence_{i:04d}", "unprompted": ""}.get(kind, f"test document {i}"),
                    "prompt_seconds": seconds / 5 if kind == "continuation" else None,
                    "seconds": seconds,
                    "flatness": float(rng.uniform(0.18, 0.3)),
                }
            )
    return entries


def metrics() -> dict[str, float]:
    values = {
        "eval/loss": 3.512,
        "eval/perplexity": 33.5,
        "eval/loss_uniform": 5.545,
        "eval/loss_unigram": 4.981,
        "eval/loss_bigram": 4.552,
        "eval/bits_per_second": 1013.4,
        "audio/flatness": 0.2331,
        "audio/flatness_db": -6.32,
        "audio/flatness_reference": 0.2412,
        "audio/flatness_gate": 1,
        "audio/fd": 209.4,
        "audio/fd_reference": 39.2,
        "audio/fd_undecoded": 312.6,
        "audio/fd_undecoded_reference": 96.1,
        "audio/fd_unigram_random": 1204.2,
        "audio/mel_flux_db": 5.31,
        "audio/mel_flux_db_reference": 5.8,
        "audio/modulation_depth": 0.93,
        "eval/pairs/speaker": 0.95,
        "eval/pairs/speaker/low": 0.87,
        "eval/pairs/speaker/high": 0.98,
        "eval/pairs/speaker/bigram": 0.5,
    }
    for layer in LAYERS:
        relative = np.array([row["load"] for row in expert_load() if row["layer"] == layer]) * N_EXPERTS
        values[f"eval/moe/max_violation/layer_{layer}"] = float(relative.max() - 1)
        values[f"eval/moe/load_cv/layer_{layer}"] = float(relative.std())
    return values | {f"eval/loss/codebook_{q}": 2.9 + 0.35 * q for q in range(4)}


def history(rng: np.random.Generator) -> list[dict[str, float]]:
    rows = []
    for step in range(0, 401, 10):
        decay = np.exp(-step / 90)
        rate = 3e-3 * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * step / 400))
        row = {
            "step": step,
            "train/loss": 3.55 + 3.2 * decay + 0.05 * rng.standard_normal(),
            "train/mtp_loss_1": 3.95 + 2.9 * decay + 0.05 * rng.standard_normal(),
            "train/learning_rate": rate,
            "train/gradient_norm": 0.5 + 3 * decay + 0.1 * rng.random(),
        }
        if step % 50 == 0 and step:
            row["val/loss"] = 3.56 + 3.15 * decay
            row["val/mtp_loss_1"] = 3.97 + 2.85 * decay
            for layer in LAYERS:
                row[f"moe/max_violation/layer_{layer}"] = 0.4 + 1.4 * decay + 0.05 * layer
                row[f"moe/bias_range/layer_{layer}"] = 0.02 * layer * (1 - decay)
        if step:
            row["throughput/tokens_per_second"] = 5600 + 150 * rng.standard_normal()
        rows.append(row)
    return rows


def comparison() -> list[dict[str, object]]:
    columns = ("signal", "flatness", "flatness_db", "fd", "fd_undecoded", "mel_flux_db", "modulation_depth")
    rows = (
        ("real", 0.2412, -6.18, 17.3, 21.4, 4.4, 1.01),
        ("codec", 0.2277, -6.43, 39.2, 96.1, 5.8, 0.97),
        ("generated", 0.2331, -6.32, 209.4, 312.6, 5.31, 0.93),
        ("continuation", 0.2365, -6.26, 171.8, 270.2, 5.22, 0.95),
        ("unprompted", 0.2298, -6.39, 251.0, 361.5, 5.4, 0.91),
        ("unigram_random", 0.1891, -7.23, 1204.2, 1420.7, 9.1, 0.42),
        ("uniform_random", 0.2141, -6.69, 3391.0, 3702.0, 9.7, 0.33),
        ("tone", 7.1e-8, -71.5, 25471.0, 26102.0, "", 0.0213),
        ("noise", 0.9951, -0.02, 43473.0, 43988.0, 4.1, 0.0812),
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def loss_by_codebook() -> list[dict[str, float]]:
    return [
        {"codebook": q, "model": 2.9 + 0.35 * q, "uniform": 5.545, "unigram": 4.7 + 0.18 * q, "bigram": 3.9 + 0.38 * q}
        for q in range(4)
    ]


def expert_load() -> list[dict[str, float]]:
    rng = np.random.default_rng(3)
    return [
        {"layer": layer, "expert": expert, "load": float(share)}
        for layer in LAYERS
        for expert, share in enumerate(rng.dirichlet(np.full(N_EXPERTS, 18.0)))
    ]


def data_card() -> dict[str, object]:
    sizes = {"train": (1180, 3240.0), "validation": (62, 171.2), "test": (60, 166.9)}
    return {
        "corpus": "espeak",
        "codec": {"kind": "mel_rvq", "n_codebooks": 4, "codebook_size": 256, "sample_rate": SAMPLE_RATE},
        "splits": {
            name: {"utterances": n, "seconds": seconds, "speakers": 6, "tokens": int(200 * seconds)}
            for name, (n, seconds) in sizes.items()
        },
        "rejected": [
            {"file": "en-us/sentence_0031.wav", "reason": "silent"},
            {"file": "en-us/sentence_0077.wav", "reason": "silent"},
            {"file": "en+f1/sentence_0102.wav", "reason": "clipped"},
        ],
        "rejected_count": 3,
        "recordings": 1305,
        "sample_rate": SAMPLE_RATE,
        "frame_rate": 50.0,
        "reference": {split: {"flatness": 0.24, "mel_flux_db": 4.4, "modulation_depth": 1.0} for split in sizes},
    }


def conversion_report() -> dict[str, object]:
    renamed = [[f"model.layers.{i}.mlp.w1.weight", f"layers.{i}.feed_forward.gate_proj.weight"] for i in range(4)]
    return {
        "verdict": {"status": "warn", "sentence": "sound: flatness 0.02, little like speech", "accepted": False},
        "checks": [
            {"name": "completeness", "status": "pass", "sentence": "no weight is missing", "numbers": {}},
            {
                "name": "transformers",
                "status": "skipped",
                "sentence": "knows no lightning checkpoints, and this is one: "
                "it has nothing to hold against what was written here",
                "numbers": {},
            },
            {"name": "logits", "status": "pass", "sentence": "equal, bit for bit", "numbers": {}},
            {"name": "sound", "status": "warn", "sentence": "flatness 0.02, little like speech", "numbers": {}},
        ],
        "quantisation": {
            "model.layers.0.self_attn.o_proj.weight": {"relative_l2": 0.0251, "max_abs": 0.0019},
            "model.layers.1.self_attn.o_proj.weight": {"relative_l2": 0.0263, "max_abs": 0.0021},
        },
        "notes": ["No codec lies beside the target."],
        "initialised": ["layers.1.mlp.gate.expert_loads"],
        "layout": "lightning",
        "source": "outputs/train/checkpoint.ckpt",
        "renamed": renamed,
        "missing": [],
        "unexpected": [],
        "parameters": 2_873_472,
    }


CONFIGURATION = {
    "seed": 1,
    "data": {"kind": "espeak", "minutes": 60, "voices": ["en-us", "en+f1"], "split": {"by": "file", "test": 0.05}},
    "codec": {"kind": "mel_rvq", "n_codebooks": 4, "codebook_size": 256, "log_floor": 1.0e-4},
    "model": {"hidden_size": 192, "num_hidden_layers": 4, "vocab_size": None},
    "optimizer": {"lr": 3.0e-3, "betas": [0.9, 0.95]},
    "trainer": {"max_steps": 400, "batch_size": 8},
    "evaluate": {
        "temperature": 0.9,
        "flatness_gate": {"min_ratio": 0.5, "max_ratio": 2.0, "min_flatness": 0.01, "max_flatness": 0.6},
    },
}


@pytest.fixture
def paths(tmp_path: Path) -> ReportPaths:
    return build_outputs(tmp_path)


@pytest.fixture(scope="session")
def shared_paths(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    """The same tree, for tests that change nothing in it."""
    return build_outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def configuration() -> dict:
    return CONFIGURATION
