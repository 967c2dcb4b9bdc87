import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.codecs.storage import load_codec, save_codec


@pytest.fixture
def folder(mel_rvq, tmp_path):
    save_codec(mel_rvq, tmp_path)
    return tmp_path


def change_settings(folder, change):
    path = folder / "codec.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def change_tensors(folder, change):
    path = folder / "codec.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_mel_rvq_round_trip_is_bit_equal(mel_rvq, folder, speech):
    again = load_codec(folder)
    audio = speech(1.0, seed=200)
    assert again.config == mel_rvq.config
    assert torch.equal(again.mean, mel_rvq.mean)
    assert torch.equal(again.quantiser.codebooks, mel_rvq.quantiser.codebooks)
    codes = mel_rvq.encode(audio)
    assert torch.equal(again.encode(audio), codes)
    assert torch.equal(again.decode(codes), mel_rvq.decode(codes))


def test_mu_law_round_trip(tmp_path):
    codec = MuLawCodec(MuLawConfig(16000, 1024, -20.0))
    save_codec(codec, tmp_path)
    assert load_codec(tmp_path).config == codec.config


def test_two_files_and_no_leftovers(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["codec.json", "codec.safetensors"]
    assert json.loads((folder / "codec.json").read_text())["kind"] == "mel_rvq"


def test_saving_again_replaces(folder):
    save_codec(MuLawCodec(MuLawConfig(8000, 256, -23.0)), folder)
    assert load_codec(folder).n_codebooks == 1


@pytest.mark.parametrize("name", ["codec.json", "codec.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.replace(".", r"\.")):
        load_codec(folder)


@pytest.mark.parametrize("name", ["codec.json", "codec.safetensors"])
def test_garbled_file_is_named(folder, name):
    (folder / name).write_bytes(b"{garbled")
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_codec(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(format_version=3), "`format_version` is 3"),
        (lambda document: document.pop("format_version"), "`format_version` is None"),
        (lambda document: document.update(kind="mel_rqv"), "codec.kind=mel_rqv .* `mel_rvq`"),
        (lambda document: document.pop("config"), "`config` is missing"),
        (lambda document: document["config"].pop("n_mels"), r"codec\.n_mels is not set"),
        (lambda document: document["config"].update(n_mel=80), r"codec\.n_mel is not"),
        (lambda document: document["config"].update(griffin_lim_iterations=10**9), r"codec\.griffin_lim_iterations"),
        (lambda document: document["config"].update(loudness_db=-21.5), "has changed since it was written"),
        (lambda document: document.pop("checksum"), "has changed since it was written"),
        (lambda document: document["config"].update(n_codebooks=4), r"`codebooks` has shape \[3, 32, 80\]"),
    ],
)
def test_wrong_field_is_named_with_its_file(folder, change, message):
    change_settings(folder, change)
    with pytest.raises(ValueError, match=rf"codec\.json.*{message}"):
        load_codec(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("mean"), "`mean` is missing"),
        (lambda tensors: tensors.update(mean=torch.zeros(79)), r"`mean` has shape \[79\] instead of \[80\]"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "`extra` is none"),
        (lambda tensors: tensors.update(mean=torch.full((80,), float("nan"))), "`mean` must hold finite"),
        (lambda tensors: tensors["mean"].mul_(1.0625), "has changed since it was written"),
        (lambda tensors: tensors.update(mean=torch.zeros(80, dtype=torch.float64)), "`mean` must hold .*float32"),
    ],
)
def test_wrong_tensor_is_named_with_its_file(folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=rf"codec\.safetensors.*{message}"):
        load_codec(folder)


def test_a_codec_of_an_earlier_export_has_no_checksums_and_is_read(mel_rvq, folder):
    def earlier(document):
        for name in ("checksum", "tensors_sha256"):
            del document[name]
        document["format_version"] = 1

    change_settings(folder, earlier)
    assert load_codec(folder).config == mel_rvq.config


def test_the_same_codec_is_written_in_the_same_bytes(mel_rvq, folder, tmp_path):
    save_codec(mel_rvq, tmp_path / "again")
    for name in ("codec.json", "codec.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
