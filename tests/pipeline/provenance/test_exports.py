from pathlib import Path

import pytest

from pipeline.provenance.exports import export_digest, size_of


def write_export(folder: Path, weights: str = "weights", codec: str = "codec") -> Path:
    (folder / "codec").mkdir(parents=True)
    (folder / "checksums.json").write_text(weights)
    (folder / "codec" / "codec.json").write_text(codec)
    return folder


def test_an_export_is_the_same_wherever_it_lies_and_whatever_is_written_beside(tmp_path):
    here, there = write_export(tmp_path / "here"), write_export(tmp_path / "there")
    (there / "conversion_report.json").write_text("{}")
    assert export_digest(here) == export_digest(there)
    assert size_of(there) == size_of(here) + 2


@pytest.mark.parametrize("other", [{"weights": "others"}, {"codec": "another"}])
def test_other_weights_or_another_codec_make_another_export(tmp_path, other):
    assert export_digest(write_export(tmp_path / "a")) != export_digest(write_export(tmp_path / "b", **other))


def test_an_export_without_checksums_is_read_whole(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    assert export_digest(tmp_path / "a") != export_digest(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_digest(tmp_path / "absent")
