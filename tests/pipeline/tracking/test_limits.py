import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from pipeline.tracking.limits import PARAMETER_LENGTH, flatten, valid_key, valid_tags


@pytest.mark.parametrize("key", ["a//b", "../up", "/root", "a/./b", "50 %", "größe", "", "x" * 400, "loss[0]", "a\nb"])
def test_every_name_becomes_one_that_mlflow_accepts(key):
    _validate_metric_name(valid_key(key))
    _validate_param_name(valid_key(key))


@pytest.mark.parametrize("key", ["eval/loss/codebook_3", "moe/max_violation/layer_1", "model.objective.weight"])
def test_the_names_in_use_stay_as_they_are(key):
    assert valid_key(key) == key


def test_long_names_stay_apart():
    assert valid_key("x" * 300 + "a") != valid_key("x" * 300 + "b")


def test_nested_settings_get_dotted_names():
    nested = {"model": {"n": 2, "objective": {"weight": 0.1}}, "seed": None, "flags": [True, "a"], "empty": {}}
    assert flatten(nested) == {
        "model.n": "2",
        "model.objective.weight": "0.1",
        "seed": "null",
        "flags": '[true, "a"]',
        "empty": "{}",
    }


def test_long_values_are_cut_visibly():
    assert flatten({"list": "x" * 7000})["list"] == "x" * (PARAMETER_LENGTH - 1) + "…"
    assert len(valid_tags({"tag": "x" * 9000})["tag"]) == 5000
