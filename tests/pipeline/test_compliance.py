import json
from collections.abc import Callable

import numpy as np
import pytest
import yaml

from pipeline.architecture.examination import codec_vocabulary, examine
from pipeline.compose import compose
from pipeline.configuration.composed import CONF
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary
from tests.pipeline.conftest import Told


def test_the_command_prints_one_json_object(typed: Callable[..., Told]):
    status, output, told = typed("compliance", "model=deepseek_v3", "output=json")
    assert status == 0, told
    assert json.loads(output)["parameters"]["total"] == 671_026_404_352


def test_the_command_refuses_another_output(typed: Callable[..., Told]):
    status, _, told = typed("compliance", "output=yaml")
    assert (status, told) == (2, "ERROR: output is 'yaml'; choose table or json.\n")


def test_the_printing_options_stay_out_of_the_stages_parameters():
    assert "output" not in compose()


@pytest.fixture(scope="module")
def values() -> dict:
    return compose()


def test_a_vocabulary_of_null_follows_the_codec(values, tmp_path):
    report = examine(values, tmp_path)
    assert report["parameters"]["by_component"]["embedding"] == (8 + 4 * 256) * 192
    # An hour is 50 frames a second of 4 codebooks; a tenth is held out.
    assert report["budgets"]["available_tokens"] == 60 * 60 * 50 * 4 * 0.9
    assert report["budgets"]["source"].startswith("not prepared")


def test_prepared_data_are_counted(values, tmp_path):
    vocabulary = Vocabulary(4, 256)
    documents = [np.arange(8, 30), np.arange(8, 20)]
    write_shard(shard_path(tmp_path / "train", 0), documents, vocabulary)
    finish_split(tmp_path / "train")
    budgets = examine(values, tmp_path)["budgets"]
    assert budgets["available_tokens"] == 34
    trainer = yaml.safe_load((CONF / "trainer/default.yaml").read_text())
    n_tokens = trainer["max_steps"] * trainer["batch_size"] * trainer["sequence_length"]
    planned = [row["tokens"] for row in budgets["rows"] if row["rule"] == "this training"]
    assert planned == pytest.approx([n_tokens] * 2)


def test_vocabularies_of_codecs():
    assert codec_vocabulary({"kind": "mu_law", "quantization_channels": 256}, None).size == 264
    pretrained = {"kind": "pretrained", "model": "some/codec", "n_codebooks": 8}
    index = {"vocabulary": {"n_codebooks": 8, "codebook_size": 1024}}
    assert codec_vocabulary(pretrained, index).size == 8 + 8192
    with pytest.raises(ValueError, match="set model.vocab_size, or run prepare-data first"):
        codec_vocabulary(pretrained, None)
