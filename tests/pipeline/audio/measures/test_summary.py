import json

import numpy as np
import pytest

from pipeline.audio.measures.controls import control_signals
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.audio.measures.modulation import mel_flux, modulation_depth
from pipeline.audio.measures.summary import ReferenceStatistics, measure_speech


@pytest.fixture(scope="module")
def utterances(make_voice):
    return [make_voice(1.0, 8000, seed) for seed in range(5)]


@pytest.fixture
def saved(utterances, tmp_path):
    paths = tmp_path / "reference.json", tmp_path / "reference.safetensors"
    reference = ReferenceStatistics(8000, measure_speech(utterances, 8000, None))
    reference.save(*paths)
    return reference, paths


def test_medians_are_over_what_can_be_heard(utterances):
    noise = FrechetStatistics.from_audio(control_signals("white_noise", 2, 1.0, 8000, seed=0), 8000)
    measures = measure_speech([*utterances, np.zeros(8000), np.zeros(10)], 8000, noise)

    flatness = [spectral_flatness(audio, 8000) for audio in utterances]
    assert (measures.n_utterances, measures.n_silent) == (7, 2)
    assert measures.flatness == np.median(flatness)
    assert measures.flatness_p5 == pytest.approx(np.percentile(flatness, 5))
    assert measures.flatness_p95 == pytest.approx(np.percentile(flatness, 95))
    assert measures.flatness_db == pytest.approx(10 * np.log10(np.median(flatness)))
    assert measures.mel_flux_db == np.median([mel_flux(audio, 8000) for audio in utterances])
    assert measures.modulation_depth == np.median([modulation_depth(audio, 8000) for audio in utterances])
    assert measures.fd == pytest.approx(frechet_distance(FrechetStatistics.from_audio(utterances, 8000), noise))


def test_nothing_audible_measures_as_nothing(utterances):
    reference = FrechetStatistics.from_audio(utterances, 8000)
    for silence in ([], [np.zeros(8000)]):
        measures = measure_speech(silence, 8000, reference)
        assert measures.n_silent == measures.n_utterances == len(silence)
        assert measures.fd is None
        assert np.isnan([measures.flatness, measures.flatness_db, measures.mel_flux_db]).all()


def test_a_reference_is_read_as_it_was_saved(saved, utterances):
    reference, paths = saved
    read = ReferenceStatistics.load(*paths)
    assert read == reference
    np.testing.assert_array_equal(read.measures.statistics.covariance, reference.measures.statistics.covariance)
    again = measure_speech(utterances, 8000, read.measures.statistics)
    assert again.fd == pytest.approx(0, abs=1e-6)


def test_files_of_different_references_are_refused(saved, utterances):
    _, (json_path, safetensors_path) = saved
    other = ReferenceStatistics(8000, measure_speech(utterances[:2], 8000, None))
    other.save(json_path.with_name("other.json"), safetensors_path)
    with pytest.raises(ValueError, match=r"reference\.json and .*reference\.safetensors are not of one reference"):
        ReferenceStatistics.load(json_path, safetensors_path)


def test_damaged_files_are_named(saved):
    _, (json_path, safetensors_path) = saved
    content = json.loads(json_path.read_text())
    del content["measures"]["mel_flux_db"]
    json_path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"reference\.json lacks a measure.*mel_flux_db"):
        ReferenceStatistics.load(json_path, safetensors_path)
    json_path.write_text(json.dumps(content | {"format": 0}))
    with pytest.raises(ValueError, match=r"reference\.json is no reference of format 1"):
        ReferenceStatistics.load(json_path, safetensors_path)
    safetensors_path.write_bytes(safetensors_path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"reference\.safetensors holds no Fréchet statistics"):
        ReferenceStatistics.load(json_path, safetensors_path)
    safetensors_path.unlink()
    with pytest.raises(FileNotFoundError, match=r"reference\.safetensors does not exist"):
        ReferenceStatistics.load(json_path, safetensors_path)
