from pathlib import Path

import pytest
import torch

from pipeline.checkpoints.registry import open_checkpoint
from pipeline.conversion.against_transformers import check_against_transformers, judge
from pipeline.plumbing.files import read_json, write_json

transformers = pytest.importorskip("transformers")
MEMORY = 2**30


@pytest.mark.parametrize("changes", [{}, {"n_shared_experts": 0, "q_lora_rank": None}, {"tie_word_embeddings": True}])
def test_a_source_that_is_read_rightly_computes_the_same(
    build_decoder, export_decoder, tmp_path: Path, changes: dict
) -> None:
    export_decoder(build_decoder(**changes), tmp_path / "export", dtype="bfloat16")
    check = check_against_transformers(open_checkpoint(tmp_path / "export"), MEMORY)
    assert check.status == "pass", check.sentence
    assert check.numbers["tokens"] == 192


def test_a_configuration_that_is_read_in_two_ways_fails(build_decoder, export_decoder, tmp_path: Path) -> None:
    export_decoder(build_decoder(initializer_range=0.3), tmp_path / "export")
    source = open_checkpoint(tmp_path / "export")
    described = read_json(tmp_path / "export" / "config.json")
    yarn = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4, "mscale": 1.0, "mscale_all_dim": 1.0}
    write_json(tmp_path / "export" / "config.json", described | {"rope_scaling": yarn})
    check = check_against_transformers(source, MEMORY)
    assert check.status == "fail"
    assert "config.json is read in two ways" in check.sentence
    write_json(tmp_path / "export" / "config.json", described | {"hidden_act": "no such thing"})
    assert check_against_transformers(source, MEMORY).status == "warn"


def test_what_cannot_be_compared_is_skipped_with_the_reason(build_decoder, export_decoder, tmp_path: Path) -> None:
    export_decoder(build_decoder(), tmp_path / "export")
    source = open_checkpoint(tmp_path / "export")
    assert "conversion.max_run_gib" in check_against_transformers(source, 1000).sentence
    check = check_against_transformers(open_checkpoint(tmp_path / "trained.ckpt"), MEMORY)
    assert (check.status, check.sentence) == ("skipped", "transformers knows no lightning checkpoints")


def test_a_logit_that_is_no_number_fails() -> None:
    assert judge(torch.full((3, 4), float("nan")), torch.zeros(3, 4)).status == "fail"
