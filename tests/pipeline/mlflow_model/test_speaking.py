"""Exports as MLflow loads and asks them."""

import pickle
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.evaluation.synthesis import generate_codes
from pipeline.mlflow_model.description import describe_export, write_description
from pipeline.provenance.exports import export_digest
from pipeline.streaming.export import load_export
from tests.speaking_export import VOCABULARY, noise_codec, talkative_decoder, write_speaking_export

SHORT = {"seconds": 0.2}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speaking") / "export"
    write_speaking_export(folder, talkative_decoder(), noise_codec())
    describe_export(folder)
    return folder


@pytest.fixture(scope="module")
def model(export: Path) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(str(export), model_config={"device": "cpu"})


def test_the_input_example_is_continued_with_the_tokens_that_evaluation_draws(export, model):
    said = model.predict(model.input_example, params={**SHORT, "seed": 3})
    opening = VOCABULARY.tokens_to_codes(np.array(model.input_example.tokens[0]))
    loaded = load_export(export, "cpu")
    n_frames = 1 + loaded.n_frames(SHORT["seconds"])
    (expected,) = generate_codes(loaded.decoder, VOCABULARY, [opening], n_frames, SamplingConfig(), 3, 1)
    assert np.array_equal(VOCABULARY.tokens_to_codes(said.tokens[0]), expected[1:])
    assert said.audio[0].dtype == np.float32
    assert len(said.audio[0]) == (len(expected) - 1) * loaded.codec.sample_rate / loaded.codec.frame_rate
    assert np.abs(said.audio[0]).max() > 0
    assert said.sample_rate[0] == 8000


def test_audio_of_any_rate_is_a_prompt_and_is_heard_first_with_echo(model):
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    rows = pd.DataFrame({"audio": [noise.tolist()], "sample_rate": [16000]})
    new, echoed = (model.predict(rows, params={**SHORT, "echo": echo}) for echo in (False, True))
    assert np.array_equal(new.tokens[0], echoed.tokens[0])
    prompt = len(echoed.audio[0]) - len(new.audio[0])
    assert prompt == pytest.approx(0.25 * 8000, abs=64)


def test_rows_speak_with_seeds_of_their_own(model):
    both = model.predict(pd.DataFrame({"tokens": [[], []]}), params={**SHORT, "seed": 5})
    alone = model.predict({"tokens": np.zeros(0, np.int64)}, params={**SHORT, "seed": 6})
    assert not np.array_equal(both.tokens[0], both.tokens[1])
    assert np.array_equal(both.tokens[1], alone.tokens[0])


@pytest.mark.parametrize(
    ("rows", "params", "sentence"),
    [
        ([{}], SHORT, "neither a column `audio` nor `tokens`"),
        ([{"audio": [0.1, 0.2]}], SHORT, "row 0: `audio` comes without its `sample_rate`"),
        ([{"audio": [0.1], "sample_rate": 8000, "tokens": [8]}], SHORT, "row 0: give either"),
        ([{"audio": [0.0] * 4000, "sample_rate": 8000}], SHORT, "row 0: nothing is to be heard"),
        ({"tokens": np.array([5000])}, SHORT, "row 0: Tokens run from 5000 to 5000"),
        ({"tokens": np.array([8, 24])}, {"seconds": 0.0}, "seconds is 0.0"),
        ({"tokens": np.array([8, 24])}, {"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(model, rows, params, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.predict(rows, params=params)


def test_a_reference_loads_the_export_it_was_made_of_and_no_other(export, tmp_path, model):
    write_description(tmp_path, export, export_digest(export))
    referred = mlflow.pyfunc.load_model(str(tmp_path))
    asked = {"tokens": np.array([8, 24])}
    assert np.array_equal(referred.predict(asked, SHORT).tokens[0], model.predict(asked, SHORT).tokens[0])
    write_description(tmp_path, export, "another")
    with pytest.raises(ValueError, match="holds another export by now"):
        mlflow.pyfunc.load_model(str(tmp_path))
    write_description(tmp_path, export, export_digest(export))
    text = (tmp_path / "MLmodel").read_text().replace(str(export), str(tmp_path / "gone"))
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(FileNotFoundError, match="is gone; convert"):
        mlflow.pyfunc.load_model(str(tmp_path))


def test_loading_unpickles_nothing_and_takes_no_code_from_the_model(export, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was read")

    for module in (pickle, torch):
        monkeypatch.setattr(module, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    path = sys.path.copy()
    mlflow.pyfunc.load_model(str(export))
    assert sys.path == path
