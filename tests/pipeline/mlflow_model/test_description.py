"""The description of a model, held against MLflow's own notation."""

from pathlib import Path

import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pipeline.mlflow_model.description import PARAMETERS, describe_export, is_speaking, signature, write_description
from tests.speaking_export import noise_codec, talkative_decoder, write_speaking_export


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_export(tmp_path_factory.mktemp("description") / "export", talkative_decoder(), noise_codec())


def test_the_signature_is_what_mlflow_itself_would_write():
    tokens = Array(DataType.long)
    inputs = Schema(
        [
            ColSpec(Array(DataType.double), "audio", required=False),
            ColSpec("long", "sample_rate", required=False),
            ColSpec(tokens, "tokens", required=False),
        ]
    )
    outputs = Schema(
        [ColSpec(Array(DataType.float), "audio"), ColSpec("long", "sample_rate"), ColSpec(tokens, "tokens")]
    )
    kinds = {float: "double", int: "long", bool: "boolean"}
    parameters = ParamSchema([ParamSpec(name, kinds[type(value)], value) for name, value in PARAMETERS.items()])
    assert ModelSignature.from_dict(signature()) == ModelSignature(inputs, outputs, parameters)


def test_an_export_becomes_a_model_where_it_lies(export):
    assert is_speaking(export)
    describe_export(export)
    first = (export / "MLmodel").read_bytes()
    model = Model.load(export)
    assert model.flavors["python_function"]["data"] == "."
    assert model.load_input_example(export).tokens[0] == [8, 24]
    describe_export(export)
    assert (export / "MLmodel").read_bytes() == first


def test_a_reference_names_the_export_and_its_digest(export, tmp_path):
    write_description(tmp_path, export, "abc")
    flavor = Model.load(tmp_path).flavors["python_function"]
    assert flavor["data"] == str(export)
    assert flavor["config"]["digest"] == "abc"


def test_weights_without_a_codec_do_not_speak(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not is_speaking(tmp_path)
