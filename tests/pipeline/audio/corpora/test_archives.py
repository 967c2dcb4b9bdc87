"""WebDataset's and lhotse Shar's archives, read in place; those under `lhotse/shar` were written by lhotse 1.33."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.reading import read_audio

RATE = 8000
SHAR = Path(__file__).parent / "lhotse" / "shar"


def listed(kind: str, path: Path | str | list[str], **options: object) -> list[Recording]:
    given = {"path": str(path) if isinstance(path, Path) else path, "validation_path": None, "test_path": None}
    own = {"manifest": None, "speaker_from": "folder"} if kind == "webdataset" else {}
    return list(build_corpus(kind, given | own | options, Path("cache"), 0).recordings())


def sound(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, RATE // 4).astype(np.float32)


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(seed), RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def archive(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return content.getvalue()


FILES = {
    "spk0/a.1.json": json.dumps({"text": "one", "speaker": "ann", "duration": 0.25}).encode(),
    "spk0/a.1.wav": encoded(0),
    "spk1/größe.wav": encoded(1),
    "spk1/größe.txt": b"two\n",
    "spk1/c.jpg": b"a picture",
    "spk1/d.m4a": b"sound",
    "spk1/._d.wav": b"Finder",
    "e.wav": encoded(2),
}


def test_samples_are_told_by_what_lies_beside_them_and_read_in_place(tmp_path):
    (tmp_path / "train-0.tar").write_bytes(archive(FILES))
    (tmp_path / "train-1.tar").write_bytes(archive({"f.wav": encoded(3)}))
    one, two, unread, bare, other = listed("webdataset", tmp_path)
    assert (one.id, one.speaker, one.transcript) == ("train-0.tar/spk0/a.1.wav", "ann", "one")
    assert (two.id, two.speaker, two.transcript) == ("train-0.tar/spk1/größe.wav", "spk1", "two")
    assert unread.defect == ".m4a is not read; convert it, to FLAC say"
    assert (bare.speaker, other.id) == (tmp_path.name, "train-1.tar/f.wav")
    assert one.source.seconds == 0.25
    for seed, recording in enumerate((one, two, bare, other)):
        np.testing.assert_array_equal(read_audio(recording.source)[0], sound(seed))
    spelt = listed("webdataset", str(tmp_path / "train-{0..1}.tar"))
    assert spelt == [one, two, unread, bare, other]


def test_archives_elsewhere_and_for_each_split():
    store = fsspec.filesystem("memory")
    for number, split in enumerate(("train", "dev", "test")):
        store.pipe_file(f"/archives/{split}/0.tar", archive({"a.wav": encoded(number)}))
    folders = [f"memory://archives/{split}" for split in ("train", "dev", "test")]
    recordings = listed("webdataset", folders[0], validation_path=folders[1], test_path=folders[2])
    assert [r.split for r in recordings] == ["train", "validation", "test"]
    for seed, recording in enumerate(recordings):
        assert recording.source.path.startswith("memory://")
        np.testing.assert_array_equal(read_audio(recording.source)[0], sound(seed))


def test_a_manifest_names_the_members_of_archives_with_audio_alone(tmp_path):
    (tmp_path / "audio_0.tar").write_bytes(archive({"a.wav": encoded(0), "b.wav": encoded(1)}))
    line = {"audio_filepath": "b.wav", "duration": 0.25, "text": "b it is", "shard_id": 0, "offset": 7.5}
    (tmp_path / "tarred_audio_manifest.json").write_text(json.dumps(line))
    (recording,) = listed("webdataset", tmp_path, manifest=str(tmp_path / "tarred_audio_manifest.json"))
    assert (recording.id, recording.transcript) == ("audio_0.tar/b.wav", "b it is")
    np.testing.assert_array_equal(read_audio(recording.source)[0], sound(1))


def test_a_description_that_cannot_be_read_is_told_of_its_recording(tmp_path):
    (tmp_path / "0.tar").write_bytes(archive({"a.wav": encoded(0), "a.json": b"{", "b.wav": b"", "b.txt": b"\xff"}))
    first, second = listed("webdataset", tmp_path)
    assert first.note.startswith("a.json is not read: Expecting property name")
    assert second.note.startswith("b.txt is not read: 'utf-8' codec")


def test_a_truncated_archive_gives_what_is_whole_and_tells_of_itself(tmp_path):
    content = archive({f"{i}.wav": encoded(i) for i in range(3)})
    (tmp_path / "0.tar").write_bytes(content[: 2 * 512 + 3 * len(encoded(0)) // 2])
    whole, cut, fault = listed("webdataset", tmp_path)
    assert (whole.defect, cut.defect) == ("", "cut off with its archive")
    assert (fault.id, fault.defect) == ("0.tar", "the archive ends within 1.wav")


def test_an_archive_is_damaged_or_lacks_its_end(tmp_path):
    content = archive({"0.wav": encoded(0), "1.wav": encoded(1)})
    second = content.index(b"1.wav")
    (tmp_path / "a.tar").write_bytes(content[:second] + b"\x07" * 512 + content[second + 512 :])
    _, fault = listed("webdataset", tmp_path / "a.tar")
    assert fault.defect == f"the archive is damaged at byte {second}, and what lies behind is lost"
    (tmp_path / "b.tar").write_bytes(content[:second])
    (recording,) = listed("webdataset", tmp_path / "b.tar")
    assert (recording.defect, recording.note) == ("", "its archive has no end mark and may have been cut off")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"0.tar is no tar archive \(empty file\)"),
        (b"no archive" * 999, r"0.tar is no tar archive \(invalid header\)"),
        (gzip.compress(archive({"a.wav": b"a"}), mtime=0), "0.tar is compressed, .* decompress it with `gzip -d`"),
        (archive({"a.jpg": b"a"}), "no archive holds .wav"),
    ],
)
def test_what_is_no_archive_of_audio_is_named(tmp_path, content, said):
    (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(ValueError, match=f"data.path: .*{said}"):
        listed("webdataset", tmp_path)


def test_where_there_are_no_archives(tmp_path):
    for kind, names in (("webdataset", r"\*.tar"), ("lhotse_shar", r"cuts.\*.jsonl\*")):
        with pytest.raises(ValueError, match=f"data.path: no file is named .*{names}"):
            listed(kind, tmp_path)


def test_shar_pairs_cuts_with_their_sound():
    recordings = listed("lhotse_shar", SHAR)
    assert [(r.id, r.speaker, r.transcript) for r in recordings] == [
        ("recording.000000.tar/r.0.flac", "spk0", "text 0"),
        ("recording.000000.tar/r.1.flac", "spk1", "text 1"),
        ("recording.000001.tar/r.2.flac", "spk2", "text 2"),
    ]
    assert {len(read_audio(r.source)[0]) for r in recordings} == {RATE // 4}
    # A stretch that a cut leaves open is the whole of what its archive holds.
    assert {(r.source.start, r.source.seconds) for r in recordings} == {(None, 0.25)}


def test_shar_elsewhere():
    store = fsspec.filesystem("memory")
    for path in SHAR.iterdir():
        store.pipe_file(f"/shar/{path.name}", path.read_bytes())
    here, there = listed("lhotse_shar", SHAR), listed("lhotse_shar", "memory://shar")
    assert [r.id for r in here] == [r.id for r in there]
    np.testing.assert_array_equal(read_audio(there[1].source)[0], read_audio(here[1].source)[0])


def test_cuts_whose_sound_is_missing_or_another_s(tmp_path):
    shutil.copy(SHAR / "cuts.000000.jsonl.gz", tmp_path)
    sound_of_them = tmp_path / "recording.000000.tar"
    with pytest.raises(ValueError, match=r"data.path: .*recording.000000.tar: No such file"):
        listed("lhotse_shar", tmp_path)
    sound_of_them.write_bytes((SHAR / "recording.000000.tar").read_bytes()[:2000])
    first, second = listed("lhotse_shar", tmp_path)
    assert first.defect == "cut off with its archive"
    assert (second.id, second.defect) == ("recording.000000.tar/r.1", "its archive ends within r.0.flac")
    shutil.copy(SHAR / "recording.000001.tar", sound_of_them)
    with pytest.raises(ValueError, match=r"line 1 is the cut r.0, where recording.000000.tar has r.2.flac"):
        listed("lhotse_shar", tmp_path)


def test_cuts_that_have_no_recording(tmp_path):
    cut = {"id": "a", "type": "MonoCut", "start": 0, "duration": 1, "supervisions": [], "recording": {"sources": []}}
    (tmp_path / "cuts.0.jsonl").write_text(json.dumps(cut))
    (tmp_path / "recording.0.tar").write_bytes(archive({"a.nodata": b"", "a.nometa": b""}))
    (recording,) = listed("lhotse_shar", tmp_path)
    assert recording.defect
    with pytest.raises(ValueError, match=r"list.jsonl is not called as cuts of Shar are: cuts.000000.jsonl.gz"):
        listed("lhotse_shar", tmp_path / "list.jsonl")
