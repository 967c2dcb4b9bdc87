"""The stage on real speech and a model that was really trained, the card's story first."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from pipeline import convert_checkpoint, prepare_data
from pipeline.checkpoints.loading import load_decoder
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.configuration.composed import CONF, plain
from pipeline.conversion.configuration import read_conversion
from pipeline.conversion.held_out import HeldOut, Surroundings, open_held_out
from pipeline.conversion.verdict import listen
from pipeline.evaluation.scoring import score_documents
from pipeline.tokens.dataset import TokenDataset

SPEECH = [
    "data.minutes=15", "data.voices=[en-us]", "data.words_per_minute=[160,180]", "data.pitch=[45,55]",
    "data.workers=1", "data.split.test=0.08", "data.reference_utterances=24", "codec.n_codebooks=2",
    "codec.codebook_size=32", "codec.fit_frames=3000", "codec.kmeans_iterations=5", "codec.griffin_lim_iterations=4",
]  # fmt: skip
MODEL = DecoderConfig(
    vocab_size=72, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=32, kv_lora_rank=24,
    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24, intermediate_size=96, moe_intermediate_size=32,
    first_k_dense_replace=1, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1,
    scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5, rope_theta=10000.0, rms_norm_eps=1e-6,
    max_position_embeddings=4096, tie_word_embeddings=False, initializer_range=0.1, num_nextn_predict_layers=0,
)  # fmt: skip
N_STEPS, WINDOW, LEARNING_RATE = 200, 513, 8e-3


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes longer than anything here does."""
    monkeypatch.setattr("pipeline.plumbing.worker_processes.os.cpu_count", lambda: 1)


def compose(folder: Path, *overrides: str) -> Any:
    architecture = [f"model.{f.name}={getattr(MODEL, f.name)}" for f in fields(MODEL)]
    architecture = [override.replace("=None", "=null") for override in architecture]
    places = [f"paths.{name}={folder / name}" for name in ("prepared", "cache", "outputs")]
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        return hydra.compose("config", [*SPEECH, *architecture, *places, "tracking=none", *overrides])


@pytest.fixture(scope="module")
def folder(espeak_available: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data: a quarter of an hour of one voice."""
    folder = tmp_path_factory.mktemp("story")
    prepare_data.main(compose(folder))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Decoder:
    """A decoder that has learnt what follows what."""
    decoder = Decoder(MODEL)
    decoder.initialize_weights(0)
    train = TokenDataset.open(folder / "prepared" / "train")
    tokens = torch.from_numpy(np.concatenate(list(train.chunks(2**20))))
    optimizer = torch.optim.AdamW(decoder.parameters(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=20)
    generator = torch.Generator().manual_seed(0)
    for _ in range(N_STEPS):
        starts = torch.randint(len(tokens) - WINDOW, (2, 1), generator=generator)
        windows = tokens[starts + torch.arange(WINDOW)]
        logits, _ = decoder.next_token_logits(windows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        warmup.step()
    return decoder.eval()


@pytest.fixture(scope="module")
def held_out(folder: Path) -> HeldOut:
    return open_held_out(surroundings(folder), MODEL.vocab_size, 20_000)


def surroundings(folder: Path) -> Surroundings:
    return Surroundings(folder / "prepared", folder / "prepared" / "codec", None, seed=1)


@pytest.fixture(scope="module")
def legacy(folder: Path, trained: Decoder) -> Path:
    """The decoder as an old pickle holds it: wrapped, prefixed, `out_proj`, and no expert loads."""
    weights = {
        f"module.{name.replace('o_proj', 'out_proj')}": tensor
        for name, tensor in trained.state_dict().items()
        if "expert_loads" not in name
    }
    torch.save({"model_state_dict": weights, "epoch": 3}, folder / "old.pt")
    return folder / "old.pt"


@pytest.fixture(scope="module")
def checkpoint(folder: Path, trained: Decoder) -> Path:
    """The decoder as its training saved it, where the stage looks for it."""
    path = folder / "outputs" / "train" / "checkpoint.ckpt"
    path.parent.mkdir(parents=True)
    state = {f"decoder.{name}": tensor for name, tensor in trained.state_dict().items()}
    values = {"hyper_parameters": {"decoder": asdict(MODEL)}, "global_step": N_STEPS, "epoch": 0}
    torch.save({"state_dict": state, **values, "pytorch-lightning_version": "2.6.6"}, path)
    return path


@pytest.fixture
def convert(folder: Path, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Run the stage in this process; returns the target and its report."""

    def run(source: Path, *overrides: str, name: str = "export") -> tuple[Path, dict[str, Any]]:
        target = tmp_path / name
        convert_checkpoint.main(compose(folder, f"source={source}", f"target={target}", *overrides))
        report = target / "conversion_report.json"
        return target, json.loads((report if target.is_dir() else Path(f"{target}.{report.name}")).read_text())

    return run


def checks(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in report["checks"]}


def test_a_legacy_checkpoint_speaks_as_its_source_did(
    convert, folder: Path, legacy: Path, trained: Decoder, held_out: HeldOut
) -> None:
    target, report = convert(legacy)
    found = checks(report)
    assert report["source_layout"] == "legacy"
    assert report["repaired"] == [
        [f"layers.{layer}.self_attn.out_proj.weight", f"model.layers.{layer}.self_attn.o_proj.weight"]
        for layer in range(2)
    ]
    assert report["missing"] == report["unexpected"] == []
    assert report["initialised"] == ["model.layers.1.mlp.gate.expert_loads"]
    assert {found[name]["status"] for name in ("logits", "held-out loss", "equal to source")} == {"pass"}
    assert report["verdict"]["status"] != "fail"

    expected = score_documents(trained, held_out.documents, 2).loss
    assert expected < held_out.baselines.evaluate(held_out.documents).bigram - 0.3
    assert found["held-out loss"]["numbers"]["loss"] == expected
    assert score_documents(load_decoder(target), held_out.documents, 2).loss == expected
    settings = read_conversion(plain(compose(folder)))
    spoken = listen(trained, held_out, True, settings, surroundings(folder))
    assert found["sound"]["numbers"] == spoken.numbers


def test_the_same_checkpoint_without_the_rename_is_refused_by_name(convert, legacy: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpointError, match="output projections missing in layers 0-1"):
        convert(legacy, "conversion.rename_legacy=false")
    assert not (tmp_path / "export").exists()


def test_random_output_projections_fail_on_the_held_out_loss(convert, legacy: Path, tmp_path: Path) -> None:
    unrepaired = ("conversion.rename_legacy=false", "conversion.allow_missing=['*.o_proj.weight']")
    with pytest.raises(ValueError, match="verdict is fail: output projections missing in layers 0-1") as error:
        convert(legacy, *unrepaired)
    assert "held-out loss" in str(error.value)
    assert not (tmp_path / "export").exists()
    rejected = tmp_path / "export.rejected" / "export"
    assert str(rejected / "conversion_report.json") in str(error.value)
    report = json.loads((rejected / "conversion_report.json").read_text())
    loss = checks(report)["held-out loss"]
    assert loss["status"] == "fail"
    assert loss["numbers"]["bigram"] < loss["numbers"]["loss"]
    assert load_decoder(rejected).config == MODEL

    target, accepted = convert(legacy, *unrepaired, "conversion.accept=true")
    assert (accepted["verdict"]["status"], accepted["verdict"]["accepted"]) == ("fail", True)
    assert load_decoder(target).config == MODEL
    assert not rejected.exists(), "what was rejected is superseded"


def test_by_default_what_training_wrote_becomes_the_export(folder: Path, checkpoint: Path) -> None:
    convert_checkpoint.main(compose(folder))
    export = folder / "outputs" / "export"
    report = json.loads((export / "conversion_report.json").read_text())
    assert (report["layout"], report["step"], report["source"]) == ("huggingface", N_STEPS, str(checkpoint))
    assert {file["name"] for file in report["files"]} <= {path.name for path in export.iterdir()}
    assert (export / "codec" / "codec.json").read_bytes() == (folder / "prepared/codec/codec.json").read_bytes()
    assert [path.name for path in export.parent.iterdir() if "export" in path.name] == ["export"], "nothing is left"


def test_the_running_mean_is_exported_where_training_kept_one(convert, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no running mean of its weights"):
        convert(checkpoint, "conversion.weights=ema")
    values = torch.load(checkpoint, weights_only=True)
    left_out = ("e_score_correction_bias", "expert_loads")
    weights = {name.removeprefix("decoder."): tensor for name, tensor in values["state_dict"].items()}
    mean = {name: 0.9 * tensor for name, tensor in weights.items() if not name.endswith(left_out)}
    torch.save(values | {"parameter_average": mean}, tmp_path / "averaged.ckpt")
    target, report = convert(tmp_path / "averaged.ckpt", "conversion.weights=ema", "conversion.accept=true")
    assert report["weights"] == "ema"
    assert torch.equal(load_decoder(target).norm.weight, mean["norm.weight"])


@pytest.mark.parametrize("layout", ["lightning", "distributed", "deepseek"])
def test_every_layout_is_judged_by_the_same_checks(convert, checkpoint: Path, layout: str) -> None:
    drop = ["conversion.drop=[expert_loads]"] if layout == "deepseek" else []
    _, report = convert(checkpoint, f"layout={layout}", *drop)
    found = checks(report)
    assert report["layout"] == layout
    assert {found[name]["status"] for name in ("shapes", "dtypes", "finite values", "equal to source")} == {"pass"}
    assert found["logits"]["sentence"].startswith("equal on")


@pytest.mark.parametrize(("dtype", "largest"), [("bfloat16", 2**-8), ("fp8", 2**-4)])
def test_rounding_is_measured_and_bounded(convert, checkpoint: Path, dtype: str, largest: float) -> None:
    _, report = convert(checkpoint, f"conversion.dtype={dtype}")
    found = checks(report)
    assert 0 < found["equal to source"]["numbers"]["largest_relative_error"] < largest
    assert 0 < found["logits"]["numbers"]["divergence"] < found["logits"]["numbers"]["bound"]
    assert report["quantisation"]["model.layers.0.self_attn.o_proj.weight"]["relative_l2"] > 0
    assert report["verdict"]["status"] != "fail"


def test_what_cannot_be_run_is_skipped_with_the_reason(convert, checkpoint: Path, tmp_path: Path) -> None:
    target, report = convert(checkpoint, f"paths.prepared={tmp_path / 'none'}", "model.vocab_size=72")
    found = checks(report)
    for name in ("logits", "held-out loss", "sound"):
        assert found[name]["status"] == "skipped"
        assert "no prepared data" in found[name]["sentence"]
    assert report["notes"] == [
        f"{checkpoint} does not say which training it is from: a stranger's, or older.",
        f"No codec lies beside the target: there is none in {checkpoint}, and no {tmp_path / 'none/codec'}.",
    ]
    _, small = convert(checkpoint, "conversion.max_run_gib=1e-6", name="small")
    assert "conversion.max_run_gib allows" in checks(small)["logits"]["sentence"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layout=hugingface", "layout is 'hugingface'; did you mean `huggingface`"),
        ("conversion.source_layout=lightening", "conversion.source_layout is 'lightening'; did you mean `lightning`"),
        ("conversion.dtype=bfloat", "conversion.dtype is 'bfloat'; did you mean `bfloat16`"),
        ("conversion.drop=[mpt]", "conversion.drop is 'mpt'; did you mean `mtp`"),
        ("+conversion.dropp=[]", "conversion.dropp is not a setting; did you mean `drop`"),
        ("conversion.shard_gib=0", "conversion.shard_gib is 0; it must be positive"),
    ],
)
def test_what_is_misspelt_is_told_before_anything_is_read(folder: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_checkpoint.main(compose(folder, "source=nowhere", override))
