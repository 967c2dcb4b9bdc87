"""Manifests of every kind; those under `lhotse/` were written by lhotse 1.33."""

import gzip
import json
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.reading import read_audio
from pipeline.audio.source import Source

RATE = 8000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)
LHOTSE = Path(__file__).with_name("lhotse")


def manifest(path: Path | str | list[str], **options: object):
    absent = dict.fromkeys(("validation_path", "test_path", "supervisions", "audio_root"))
    path = str(path) if isinstance(path, Path) else path
    return build_corpus("manifest", {"path": path, "speaker_from": "folder", **absent, **options}, Path("cache"), 0)


def listed(*arguments: object, **options: object) -> list[Recording]:
    return list(manifest(*arguments, **options).recordings())


def write_lines(path: Path, *lines: dict[str, object] | str, ending: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_bytes("".join(text + ending for text in texts).encode())
    return path


def test_nemo_lines_are_relative_to_their_file_and_stretches_are_cut(tmp_path):
    path = write_lines(
        tmp_path / "lists" / "train.json",
        {"audio_filepath": "../audio/ann/a.wav", "duration": 4.0, "text": "all of it", "speaker": 7},
        {"audio_filepath": "../audio/ann/a.wav", "offset": 1.5, "duration": 1.25, "text": " a part "},
        {"audio_filepath": str(tmp_path / "elsewhere.wav"), "duration": 2, "text": ""},
    )
    (tmp_path / "audio" / "ann").mkdir(parents=True)
    soundfile.write(tmp_path / "audio" / "ann" / "a.wav", NOISE, RATE, subtype="FLOAT")
    whole, part, absolute = listed(path)
    audio = str(tmp_path / "audio" / "ann" / "a.wav")
    assert whole == Recording("../audio/ann/a.wav", "7", "all of it", source=Source(audio, seconds=4.0))
    assert part.source == Source(audio, start=1.5, seconds=1.25)
    assert (part.id, part.speaker, part.transcript) == ("../audio/ann/a.wav#t=1.5,2.75", "../audio/ann", "a part")
    assert (absolute.id, absolute.transcript) == (str(tmp_path / "elsewhere.wav"), None)
    corpus = pickle.loads(pickle.dumps(manifest(path)))
    np.testing.assert_array_equal(read_audio(corpus.source(part))[0], NOISE[12000:22000])


def test_moshi_and_audiocraft_lines_say_path(tmp_path):
    path = write_lines(tmp_path / "data.jsonl", {"path": "clips/1.wav", "duration": 24.5, "sample_rate": 32000})
    (recording,) = listed(path)
    assert recording.source == Source(str(tmp_path / "clips" / "1.wav"), seconds=24.5)


def test_common_voice_tables_name_their_clips(tmp_path):
    header = "client_id\tpath\tsentence_id\tsentence\tage"
    tables = {
        name: write_lines(tmp_path / f"{name}.tsv", header, f'{name}1\t{name}.mp3\t9\t"Quoted" it said.\t')
        for name in ("train", "dev", "test")
    }
    (tmp_path / "clips").mkdir()
    recordings = listed(tables["train"], validation_path=str(tables["dev"]), test_path=str(tables["test"]))
    assert [(r.id, r.speaker, r.split) for r in recordings] == [
        ("clips/train.mp3", "train1", "train"),
        ("clips/dev.mp3", "dev1", "validation"),
        ("clips/test.mp3", "test1", "test"),
    ]
    assert {r.transcript for r in recordings} == {'"Quoted" it said.'}


def test_csv_cells_may_be_quoted(tmp_path):
    path = write_lines(tmp_path / "list.csv", "file_name,transcription", 'a.wav,"one, two\nthree"', "b.wav,four")
    assert [(r.id, r.transcript) for r in listed(path)] == [("a.wav", "one, two\nthree"), ("b.wav", "four")]


def test_a_split_without_a_manifest_of_its_own_is_left_open(tmp_path):
    train = write_lines(tmp_path / "train.jsonl", {"path": "a.wav"})
    valid = write_lines(tmp_path / "valid.jsonl", {"path": "b.wav"})
    assert [r.split for r in listed(train, validation_path=str(valid))] == [None, "validation"]


def test_lhotse_recordings_and_cuts(tmp_path):
    recordings = listed(LHOTSE / "recordings.jsonl.gz")
    assert [(r.id, r.source.start, r.source.seconds) for r in recordings] == [
        (f"a/r{i}.wav", None, 4.0) for i in range(3)
    ]
    expected = [
        (f"a/r{i}.wav#t={start:g},{start + 1.5:g}", f"spk{i}", f"text {i} {j}")
        for i in range(3)
        for j, start in enumerate((0.0, 2.0))
    ]
    cuts = listed(LHOTSE / "cuts.jsonl.gz")
    assert [(r.id, r.speaker, r.transcript) for r in cuts] == expected
    supervisions = str(LHOTSE / "supervisions.jsonl.gz")
    supervised = listed(LHOTSE / "recordings.jsonl.gz", supervisions=supervisions)
    assert supervised == cuts
    with pytest.raises(ValueError, match=r"line 1: is one of lhotse's supervisions: give .* \(and 5 more\)"):
        listed(supervisions)


def lhotse_cut(sources: list[dict[str, object]], **fields: object) -> dict[str, object]:
    recording = {"id": "r", "sources": sources, "duration": 4.0, **fields.pop("recording", {})}
    return {"id": "c", "type": "MonoCut", "start": 0, "duration": 4.0, "recording": recording, **fields}


def test_lhotse_channels_and_what_is_no_file(tmp_path):
    stereo = {"type": "file", "channels": [0, 1], "source": "s.wav"}
    apart = [{"type": "file", "channels": [i], "source": f"{i}.wav"} for i in (0, 1)]
    path = write_lines(
        tmp_path / "cuts.jsonl",
        lhotse_cut([stereo], channel=1),
        lhotse_cut([stereo], channel=[0, 1], type="MultiCut"),
        lhotse_cut(apart, channel=1),
        lhotse_cut(apart, channel=[0, 1], type="MultiCut"),
        lhotse_cut([{"type": "command", "channels": [0], "source": "sph2pipe x.sph |"}], channel=0),
        {"id": "m", "type": "MixedCut", "tracks": []},
        lhotse_cut([stereo], start=1, duration=1, recording={"transforms": [{"name": "Resample"}, {"name": "Speed"}]}),
    )
    one, both, other, several, command, mixed, sped = listed(path)
    assert (one.id, one.source.channel) == ("s.wav#channel=1", 1)
    assert (both.id, both.source.channel) == ("s.wav", None)
    assert (other.id, other.source.channel, other.defect) == ("1.wav", None, "")
    assert several.defect == "its channels lie in 2 files, and 2 of them are meant"
    assert command.defect == "its sound is the output of lhotse's `command`, which is not run"
    assert mixed.defect == "lhotse's MixedCut without a recording of its own"
    assert sped.note == "transforms of the manifest are not applied: Speed"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_how_a_manifest_is_written_does_not_matter(tmp_path, ending, mark, suffix):
    line = {"path": "größe/日本.wav", "text": "näh"}
    path = write_lines(tmp_path / "plain", line, "", line | {"path": "b.wav"}, ending=ending)
    content = mark + path.read_bytes()
    path = tmp_path / f"list.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert [(r.id, r.transcript) for r in listed(path)] == [("größe/日本.wav", "näh"), ("b.wav", "näh")]


def test_what_is_named_twice_counts_once_and_is_told(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"path": "a.wav"}, {"path": "a.wav", "offset": 1}, {"path": "./a.wav"})
    recordings = listed(path)
    assert [r.id for r in recordings] == ["a.wav", "a.wav#t=1", "a.wav (again, line 3 of a.jsonl)"]
    assert [bool(r.defect) for r in recordings] == [False, False, True]


def test_names_in_manifests_of_several_folders_differ(tmp_path):
    paths = [str(write_lines(tmp_path / part / "list.jsonl", {"path": "1.wav"})) for part in ("x", "y")]
    assert [r.id for r in listed(paths)] == ["x/1.wav", "y/1.wav"]
    assert [r.id for r in listed(str(tmp_path / "*" / "list.jsonl"))] == ["x/1.wav", "y/1.wav"]
    assert [r.id for r in listed(str(tmp_path / "{x,y}" / "list.jsonl"))] == ["x/1.wav", "y/1.wav"]


def test_audio_root_takes_the_place_of_the_manifest_s_folder(tmp_path):
    path = write_lines(tmp_path / "list.jsonl", {"path": "s/1.wav"})
    (recording,) = listed(path, audio_root="/corpus")
    assert (recording.id, recording.source.path) == ("s/1.wav", "/corpus/s/1.wav")


def test_manifests_and_audio_elsewhere(tmp_path):
    store = fsspec.filesystem("memory")
    soundfile.write(tmp_path / "a.wav", NOISE, RATE, subtype="FLOAT")
    store.pipe_file("/bucket/audio/a.wav", (tmp_path / "a.wav").read_bytes())
    lines = [
        {"path": "../audio/a.wav"},
        {"path": str(tmp_path / "a.wav")},
        {"path": "https://host/b.wav?token=abcdefgh"},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    store.pipe_file("/bucket/lists/train.jsonl.gz", gzip.compress(content))
    elsewhere, local, signed = listed("memory://bucket/lists/train.jsonl.gz")
    assert (elsewhere.source.path, local.source.path) == ("memory://bucket/audio/a.wav", str(tmp_path / "a.wav"))
    np.testing.assert_array_equal(read_audio(elsewhere.source)[0], NOISE)
    stretch = Source(elsewhere.source.path, start=1.0, seconds=0.5)
    np.testing.assert_array_equal(read_audio(stretch)[0], NOISE[8000:12000])
    assert signed.id == "https://host/b.wav?token=***"
    with pytest.raises(ValueError, match="data.path: memory://bucket/none.jsonl does not exist"):
        listed("memory://bucket/none.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"path": "a.wav", "duration": "long"}', r"line 2: `duration` is 'long', not a number of seconds"),
        ('{"path": "a.wav", "duration": NaN}', "`duration` is nan, not a number of seconds"),
        ('{"path": "a.wav", "duration": 0}', "`duration` is 0; leave it out"),
        ('{"path": "a.wav", "offset": -1}', "`offset` is -1, not a number of seconds"),
        ('{"path": 5}', "`path` is 5, not the path of an audio file"),
        ('{"path": "a.wav", "text": ["b"]}', r"`text` is \['b'\], not text"),
        ('{"path": "\\ud800.wav"}', "`path` holds half a character"),
        ('{"text": "b"}', r"has no field for the audio \(audio_filepath, path, .*\); it has text"),
        ("{'path': 'a.wav'}", "is no JSON .*column 2"),
        ("[1, 2]", r"is \[1, 2\], not a JSON object"),
    ],
)
def test_a_line_that_says_nothing_is_named_with_its_remedy(tmp_path, line, said):
    path = write_lines(tmp_path / "list.jsonl", {"path": "a.wav"}, line)
    with pytest.raises(
        ValueError, match=rf"data.path: .*list.jsonl, line 2: .*{said.removeprefix('line 2: ')}"
    ) as error:
        listed(path)
    assert str(error.value).endswith("Correct or remove them.")


def test_all_bad_lines_are_counted(tmp_path):
    path = write_lines(tmp_path / "list.jsonl", {"path": "a.wav"}, *['{"text": 1}'] * 5, '{"path": 3}', "x")
    with pytest.raises(ValueError, match=r"line 2: has no field.*\(and 4 more\); line 7: `path`.*; line 8: is no JSON"):
        listed(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", '{"path": "ä"}'.encode("latin-1"), "line 1: byte 0xe4 is not UTF-8"),
        ("a.jsonl", '{"path": "a"}'.encode("utf-16"), "is UTF-16; write it in UTF-8, with `iconv"),
        ("a.json", b'[\n{"path": "a.wav"}\n]', "is one JSON document"),
        ("a.json", b'{\n "path": "a.wav"\n}', "is one JSON document"),
        ("a.jsonl.gz", gzip.compress(b'{"path": "a.wav"}\n' * 9999, mtime=0)[:60], "is cut off or damaged"),
        ("a.jsonl.gz", b'{"path": "a.wav"}', "is not compressed as its name tells"),
        ("a.tsv", b"path\tpath\n1\t2\n", "has two columns path"),
        ("a.tsv", b"path\tsentence\n1\t2\t3\n", "line 2: has 3 cells, and the header 2"),
        ("a.tsv", b"client_id\tsentence\n1\t2\n", "line 2: has no field for the audio"),
    ],
)
def test_a_file_that_is_no_manifest_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"data.path: .*{said}"):
        listed(tmp_path / name)


def test_where_there_is_no_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"data.path: .*none.jsonl: No such file"):
        listed(tmp_path / "none.jsonl")
    path = write_lines(tmp_path / "x" / "list.jsonl", {"path": "a.wav"})
    with pytest.raises(ValueError, match=r"data.test_path: no file is named .*\*.jsonl"):
        listed(path, test_path=str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": []}, "data.path must be a path, a pattern or a URL"),
        ({"path": [3]}, r"data.path is \[3\]"),
        ({"path": "s3://key:secretsecret@bucket/a.jsonl"}, r"data.path=s3://bucket/a.jsonl carries credentials"),
        ({"path": "a", "audio_root": "https://h/x?sig=abcdefgh"}, "data.audio_root.*carries credentials"),
        ({"path": "a", "speaker_from": "nobody"}, "data.speaker_from=nobody"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(ValueError, match=said) as error:
        manifest(**options)
    assert "secret" not in str(error.value)
