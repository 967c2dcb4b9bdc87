import json

import numpy as np
import pytest

from pipeline.plumbing.files import read_json, write_json
from pipeline.reporting.data import collect


def test_everything_the_stages_wrote_is_read(paths, configuration):
    report = collect(paths, configuration, n_examples=2)
    assert report.metrics["eval/loss"] == 3.512
    assert list(report.expert_load) == ["1", "2", "3"]
    assert all(load.shape == (8,) for load in report.expert_load.values())
    assert report.comparison["tone"]["fd"] == 25471.0
    assert np.isnan(report.comparison["tone"]["mel_flux_db"])
    assert len(report.loss_by_codebook) == 4
    assert report.data_card["corpus"] == "espeak"
    assert report.conversion["parameters"] == 2_873_472


def test_a_curve_holds_only_the_steps_at_which_it_was_logged(paths):
    history = collect(paths).history
    assert history["val/loss"].steps.tolist() == list(range(50, 401, 50))
    assert len(history["train/loss"].values) == 41
    assert "step" not in history


def test_missing_metrics_name_the_stage_to_run(paths):
    (paths.evaluate / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"metrics\.json does not exist; run the evaluate stage"):
        collect(paths)


def test_only_the_metrics_are_required(paths):
    for folder in (paths.prepared, paths.train, paths.export, paths.evaluate):
        for file in folder.iterdir():
            if file.is_file() and file.name != "metrics.json":
                file.unlink()
    report = collect(paths)
    for name in ("history", "clips", "expert_load", "loss_by_codebook", "comparison", "data_card", "conversion", "run"):
        assert not getattr(report, name)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", '{"eval/loss": "low"}', "eval/loss is 'low', not a number"),
        ("metrics.json", "[1, 2]", "holds a list, not an object"),
        ("metrics.json", "{", "is not valid JSON"),
        ("comparison.csv", "name,fd\nreal,1\n", "has no column 'signal'"),
        ("comparison.csv", "signal,fd\nreal,1,2\n", "row 1 has more cells than the header"),
        ("loss_by_codebook.csv", "codebook,model\n0,high\n", "row 1, column 'model': 'high' is not a number"),
        ("audio.json", '[{"file": "real_00.wav"}]', "entry 1: `file` and `kind` are needed"),
        ("audio.json", '[{"file": "../../secret.wav", "kind": "real"}]', "outside"),
        ("audio.json", '[{"file": "noise.wav", "kind": "real"}]', "noise.wav is not readable audio"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(paths, file, content, message):
    (paths.evaluate / "audio" / "noise.wav").write_bytes(b"not audio at all")
    (paths.evaluate / file).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        collect(paths)
    assert file in str(caught.value) or file == "audio.json"


def test_a_listed_clip_that_does_not_exist_is_an_error(paths):
    (paths.evaluate / "audio" / "real_00.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"real_00\.wav is listed but does not exist"):
        collect(paths)


def test_an_undefined_metric_is_nan(paths):
    values = read_json(paths.evaluate / "metrics.json") | {"audio/flatness": None}
    write_json(paths.evaluate / "metrics.json", values)
    assert np.isnan(collect(paths).metrics["audio/flatness"])


def test_clips_shown_are_those_that_have_everything_to_be_heard_beside(paths):
    entries = json.loads((paths.evaluate / "audio.json").read_text())
    without_first_real = [entry for entry in reversed(entries) if entry["file"] != "real_00.wav"]
    write_json(paths.evaluate / "audio.json", without_first_real)
    clips = collect(paths, n_examples=2).clips
    pairs = {kind: {clip.pair for clip in clips if clip.kind == kind} for kind in ("real", "codec", "continuation")}
    assert pairs["real"] == pairs["codec"] == pairs["continuation"] == {"1", "2"}


def test_clips_without_numbers_are_paired_by_their_source(paths):
    entries = json.loads((paths.evaluate / "audio.json").read_text())
    write_json(paths.evaluate / "audio.json", [{"file": e["file"], "kind": e["kind"], "source": "a"} for e in entries])
    assert {clip.pair for clip in collect(paths).clips} == {"a"}


def test_a_negative_number_of_examples_is_refused(paths):
    with pytest.raises(ValueError, match=r"report\.n_examples is -1"):
        collect(paths, n_examples=-1)
