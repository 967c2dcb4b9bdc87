import os
import pickle

import numpy as np
import pytest

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.reading import UnusableRecording, read_audio, write_wav

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 800).astype(np.float32)


def folder_corpus(root, speaker_from="folder", transcripts=None):
    options = {"root": str(root), "speaker_from": speaker_from, "transcripts": transcripts}
    return build_corpus("folder", options, root / "cache", 0)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "speech"
    for name in ("bob/1.WAV", "ann/b/2.wav", "ann/a.wav", "top.wav", ".hidden/x.wav", "ann/._a.wav"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path.with_suffix(".wav"), NOISE, 8000)
        path.with_suffix(".wav").rename(path)
    (root / "ann" / "notes.txt").write_text("no audio")
    return root


def test_tree_is_found_sorted_and_hidden_files_are_not(tree):
    recordings = folder_corpus(tree).recordings()
    assert [recording.id for recording in recordings] == ["ann/a.wav", "ann/b/2.wav", "bob/1.WAV", "top.wav"]


@pytest.mark.parametrize(
    ("speaker_from", "speakers"),
    [
        ("folder", ["ann", "ann/b", "bob", "speech"]),
        ("file", ["ann/a.wav", "ann/b/2.wav", "bob/1.WAV", "top.wav"]),
        ("none", ["speech"] * 4),
    ],
)
def test_speakers(tree, speaker_from, speakers):
    assert [recording.speaker for recording in folder_corpus(tree, speaker_from).recordings()] == speakers


def test_recordings_are_read_also_from_a_copy_of_the_corpus(tree):
    corpus = pickle.loads(pickle.dumps(folder_corpus(tree)))
    audio, rate = read_audio(corpus.path(corpus.recordings()[0]))
    assert rate == 8000
    np.testing.assert_allclose(audio, NOISE, atol=1e-4)


def test_relative_root_starts_at_the_current_directory(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    options = {"root": "speech", "speaker_from": "folder", "transcripts": None}
    assert len(build_corpus("folder", options, tree, 0).recordings()) == 4


def test_links_are_followed_but_not_round_in_circles(tree, tmp_path):
    (tree / "bob" / "up").symlink_to(tree, target_is_directory=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_wav(elsewhere / "far.wav", NOISE, 8000)
    (tree / "link").symlink_to(elsewhere, target_is_directory=True)
    assert [recording.id for recording in folder_corpus(tree).recordings()] == [
        "ann/a.wav", "ann/b/2.wav", "bob/1.WAV", "link/far.wav", "top.wav"
    ]  # fmt: skip


def test_dangling_link_is_a_recording_with_a_reason(tree):
    (tree / "gone.wav").symlink_to(tree / "nowhere.wav")
    corpus = folder_corpus(tree)
    gone = next(recording for recording in corpus.recordings() if recording.id == "gone.wav")
    with pytest.raises(UnusableRecording, match="a link to a file that does not exist"):
        read_audio(corpus.path(gone))


def test_name_that_is_not_utf8_is_a_recording_with_a_reason(tree):
    path = os.fsencode(tree) + b"/caf\xe9.wav"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = {recording.id: recording.defect for recording in folder_corpus(tree).recordings()}
    assert found.pop("caf\\xe9.wav") == "its name is not UTF-8; rename the file or folder"
    assert not any(found.values())


def test_every_format_is_found_whatever_its_case_and_others_are_counted(tmp_path):
    read = ["a.wav", "b.FLAC", "c.oga", "d.Opus", "e.aiff", "f.AIF", "g.au", "h.caf", "i.w64", "j.mp3", "k.rf64"]
    for name in [*read, "l.m4a", "m.WMA", "n.txt", "o.jpg"]:
        (tmp_path / name).write_bytes(b"x")
    corpus = folder_corpus(tmp_path)
    found = {recording.id: recording.defect for recording in corpus.recordings()}
    assert [name for name, defect in found.items() if not defect] == read
    assert found["l.m4a"] == ".m4a is not read; convert it, to FLAC say"
    assert set(found) == {*read, "l.m4a", "m.WMA"}
    assert corpus.remarks() == [f"data.root={tmp_path}: 2 files are in formats that are not read (l.m4a; m.WMA)."]


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    """As root every folder can be listed: the refusal has to be made up."""
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = {recording.id: recording.defect for recording in folder_corpus(tree).recordings()}
    assert found == {
        "ann/a.wav": "",
        "ann/b/": "the folder cannot be listed (Permission denied)",
        "bob/1.WAV": "",
        "top.wav": "",
    }


@pytest.mark.parametrize(("suffix", "separator", "mark"), [("csv", ",", ""), ("tsv", "\t", "\ufeff")])
def test_transcripts(tree, suffix, separator, mark):
    rows = [("file", "text", "speaker"), ("ann/a.wav", "hello", "Ann"), ("./top.wav", "good bye", "")]
    lines = "\n".join(separator.join(row) for row in rows)
    (tree / f"list.{suffix}").write_text(mark + lines, encoding="utf-8")
    recordings = {r.id: r for r in folder_corpus(tree, transcripts=f"list.{suffix}").recordings()}
    assert recordings["ann/a.wav"] == Recording("ann/a.wav", speaker="Ann", transcript="hello")
    assert recordings["top.wav"] == Recording("top.wav", speaker="speech", transcript="good bye")
    assert recordings["bob/1.WAV"].transcript is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "list.csv cannot be read"),
        (b"name,text\na,b\n", "has no column `file`; it has name, text"),
        (b"", "has no column `file`"),
        (b"file,text\nother/x.wav,hello\n", "none of its files, as other/x.wav"),
        (b"file,text\nann/a.wav,caf\xe9\n", "UTF-8"),
    ],
)
def test_bad_transcripts_are_named(tree, content, message):
    if content is not None:
        (tree / "list.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"data.transcripts=list.csv.*{message}"):
        folder_corpus(tree, transcripts="list.csv").recordings()


def test_missing_and_empty_roots_are_named(tmp_path):
    with pytest.raises(ValueError, match="data.root=.*does not exist"):
        folder_corpus(tmp_path / "nowhere").recordings()
    with pytest.raises(ValueError, match="data.root=.*holds no .wav"):
        folder_corpus(tmp_path).recordings()
    (tmp_path / "file.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="data.root=.*is not a folder"):
        folder_corpus(tmp_path / "file.wav").recordings()


def test_unknown_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match="data.speaker_from=dir is not possible"):
        folder_corpus(tmp_path, speaker_from="dir")
    with pytest.raises(ValueError, match="data.kind=foldr is not possible; did you mean `folder`"):
        build_corpus("foldr", {}, tmp_path, 0)
    with pytest.raises(ValueError, match="data.rooot is not a setting.*did you mean `root`"):
        build_corpus("folder", {"rooot": "x"}, tmp_path, 0)
    with pytest.raises(ValueError, match="data.transcripts is not set"):
        build_corpus("folder", {"root": "x", "speaker_from": "none"}, tmp_path, 0)
    with pytest.raises(ValueError, match="data.root is None"):
        build_corpus("fsdd", {"root": None}, tmp_path, 0)
