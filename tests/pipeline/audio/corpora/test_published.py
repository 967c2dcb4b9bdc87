import io
import pickle
import tarfile
import urllib.error
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torchaudio.datasets import yesno as torchaudio_yesno

from pipeline.audio.corpora.configuration import KINDS
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.reading import read_audio

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)

# The shapes in which the datasets' archives unpack: a file's text, or None for a recording.
TREES: dict[str, dict[str, str | None]] = {
    "fsdd": {
        "README.md": "digits",
        "recordings/7_jackson_0.wav": None,
        "recordings/0_theo_49.wav": None,
        "recordings/notes.txt": "none",
    },
    "ljspeech": {
        "LJSpeech-1.1/README": "about",
        "LJSpeech-1.1/metadata.csv": 'LJ001-0002|in "1900".|in nineteen hundred.\nLJ001-0001|Printing, "so|Printing\n',
        "LJSpeech-1.1/wavs/LJ001-0001.wav": None,
        "LJSpeech-1.1/wavs/LJ001-0002.wav": None,
    },
    "librispeech": {
        "LibriSpeech/SPEAKERS.TXT": "speakers",
        "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt": "84-121123-0000 GO ON\n84-121123-0001 WHY NOT\n",
        "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac": None,
        "LibriSpeech/dev-clean/84/121123/84-121123-0001.flac": None,
        "LibriSpeech/test-clean/61/70968/61-70968.trans.txt": "61-70968-0000 HE BEGAN\n",
        "LibriSpeech/test-clean/61/70968/61-70968-0000.flac": None,
    },
    "libritts": {
        "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav": None,
        "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.normalized.txt": "Go on, mister Brown.",
        "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.original.txt": "Go on, Mr. Brown.",
        "LibriTTS/dev-clean/174/50561/174_50561_000000_000000.wav": None,
        "LibriTTS/dev-clean/174/50561/174_50561_000000_000000.normalized.txt": "Forgotten too.",
    },
    "vctk": {
        "VCTK-Corpus-0.92/speaker-info.txt": "info",
        "VCTK-Corpus-0.92/txt/p225/p225_001.txt": "Please call Stella.\n",
        "VCTK-Corpus-0.92/wav48_silence_trimmed/log.txt": "log",
        "VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic1.flac": None,
        "VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic2.flac": None,
        "VCTK-Corpus-0.92/wav48_silence_trimmed/p315/p315_001_mic2.flac": None,
    },
    "yesno": {
        "waves_yesno/README": "about",
        "waves_yesno/0_0_1_0_1_0_1_1.wav": None,
        "waves_yesno/1_1_1_1_0_0_0_0.wav": None,
    },
    "speechcommands": {
        "SpeechCommands/speech_commands_v0.02/validation_list.txt": "bed/026290a7_nohash_0.wav\n",
        "SpeechCommands/speech_commands_v0.02/testing_list.txt": "cat/0c40e715_nohash_0.wav\n",
        "SpeechCommands/speech_commands_v0.02/bed/026290a7_nohash_0.wav": None,
        "SpeechCommands/speech_commands_v0.02/bed/00f0204f_nohash_1.wav": None,
        "SpeechCommands/speech_commands_v0.02/cat/0c40e715_nohash_0.wav": None,
        "SpeechCommands/speech_commands_v0.02/_background_noise_/white_noise.wav": None,
    },
}

EXPECTED = {
    "fsdd": [
        Recording("recordings/0_theo_49.wav", "theo", "zero"),
        Recording("recordings/7_jackson_0.wav", "jackson", "seven"),
    ],
    "ljspeech": [
        Recording("wavs/LJ001-0001.wav", "LJ", "Printing"),
        Recording("wavs/LJ001-0002.wav", "LJ", "in nineteen hundred."),
    ],
    "librispeech": [
        Recording("dev-clean/84/121123/84-121123-0000.flac", "84", "GO ON"),
        Recording("dev-clean/84/121123/84-121123-0001.flac", "84", "WHY NOT"),
    ],
    "libritts": [
        Recording("dev-clean/174/50561/174_50561_000000_000000.wav", "174", "Forgotten too."),
        Recording("dev-clean/84/121123/84_121123_000007_000001.wav", "84", "Go on, mister Brown."),
    ],
    "vctk": [
        Recording("wav48_silence_trimmed/p225/p225_001_mic2.flac", "p225", "Please call Stella."),
        Recording("wav48_silence_trimmed/p315/p315_001_mic2.flac", "p315", None),
    ],
    "yesno": [
        Recording("0_0_1_0_1_0_1_1.wav", "yesno", "no no yes no yes no yes yes"),
        Recording("1_1_1_1_0_0_0_0.wav", "yesno", "yes yes yes yes no no no no"),
    ],
    "speechcommands": [
        Recording("bed/00f0204f_nohash_1.wav", "00f0204f", "bed", "train"),
        Recording("bed/026290a7_nohash_0.wav", "026290a7", "bed", "validation"),
        Recording("cat/0c40e715_nohash_0.wav", "0c40e715", "cat", "test"),
    ],
}

OPTIONS: dict[str, dict[str, object]] = {
    kind: {} if kind == "fsdd" else {"download": False} for kind in TREES
}  # fmt: skip
OPTIONS["librispeech"]["subset"] = OPTIONS["libritts"]["subset"] = "dev-clean"
OPTIONS["vctk"]["microphone"] = "mic2"

# The dataset itself, as against the folder that holds it.
OWN_FOLDER = {
    "fsdd": ["recordings"],
    "ljspeech": ["LJSpeech-1.1"],
    "librispeech": ["LibriSpeech", "LibriSpeech/dev-clean"],
    "libritts": ["LibriTTS", "LibriTTS/dev-clean"],
    "vctk": ["VCTK-Corpus-0.92"],
    "yesno": ["waves_yesno"],
    "speechcommands": ["SpeechCommands", "SpeechCommands/speech_commands_v0.02"],
}


def write_tree(root: Path, tree: dict[str, str | None]) -> None:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            soundfile.write(path, NOISE, 16000)
        else:
            path.write_text(text, encoding="utf-8")


def dataset(kind: str, root: Path, **changes):
    return build_corpus(kind, {"root": str(root)} | OPTIONS[kind] | changes, root, 0)


def test_every_dataset_is_tested():
    assert set(KINDS) - {"espeak", "folder", "manifest", "webdataset", "lhotse_shar", "asterisk"} == set(TREES)


@pytest.mark.parametrize("kind", TREES)
def test_layout_from_the_folder_that_holds_it_and_from_its_own(tmp_path, kind):
    write_tree(tmp_path, TREES[kind])
    for root in (tmp_path, *(tmp_path / folder for folder in OWN_FOLDER[kind])):
        corpus = pickle.loads(pickle.dumps(dataset(kind, root)))
        assert corpus.name == kind
        assert corpus.recordings() == EXPECTED[kind], root
        for recording in corpus.recordings():
            audio, rate = read_audio(corpus.path(recording))
            assert rate == 16000
            np.testing.assert_allclose(audio, NOISE, atol=1e-4)


@pytest.mark.parametrize("kind", TREES)
def test_a_root_without_the_dataset_names_what_was_expected(tmp_path, kind):
    first = min((name for name in TREES[kind] if "/" in name), key=lambda name: name.count("/"))
    with pytest.raises(ValueError, match=f"data.root=.*does not hold {kind}: expected .*{first.split('/')[0]}"):
        dataset(kind, tmp_path).recordings()
    with pytest.raises(ValueError, match="data.root=.*does not exist"):
        dataset(kind, tmp_path / "nowhere").recordings()


def test_other_subsets_and_microphones(tmp_path):
    for kind in ("librispeech", "vctk"):
        write_tree(tmp_path, TREES[kind])
    assert [r.speaker for r in dataset("librispeech", tmp_path, subset="test-clean").recordings()] == ["61"]
    assert [r.speaker for r in dataset("vctk", tmp_path, microphone="mic1").recordings()] == ["p225"]
    with pytest.raises(ValueError, match="data.subset=train-clean-10 is not possible; did you mean `train-clean-100`"):
        dataset("librispeech", tmp_path, subset="train-clean-10")
    with pytest.raises(ValueError, match="data.microphone=mic3"):
        dataset("vctk", tmp_path, microphone="mic3")
    with pytest.raises(ValueError, match="data.download .* type bool"):
        dataset("vctk", tmp_path, download="yes")


def test_incomplete_datasets_are_named(tmp_path):
    for kind in ("librispeech", "speechcommands", "ljspeech"):
        write_tree(tmp_path, TREES[kind])
    (tmp_path / "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt").write_text("84-121123-0000 GO ON\n")
    with pytest.raises(ValueError, match="incomplete.*84-121123-0001"):
        dataset("librispeech", tmp_path).recordings()
    (tmp_path / "SpeechCommands/speech_commands_v0.02/testing_list.txt").unlink()
    with pytest.raises(ValueError, match="testing_list.txt is missing"):
        dataset("speechcommands", tmp_path).recordings()
    (tmp_path / "LJSpeech-1.1/metadata.csv").write_text("LJ001-0001|only two\n")
    with pytest.raises(ValueError, match=r"metadata.csv: expected lines of .*, but line 1 has 2 cells, not 3"):
        dataset("ljspeech", tmp_path).recordings()


def test_what_tables_have_wrong_is_counted_and_named(tmp_path):
    for kind in ("librispeech", "speechcommands", "ljspeech", "vctk"):
        write_tree(tmp_path, TREES[kind])
    metadata = tmp_path / "LJSpeech-1.1/metadata.csv"
    metadata.write_bytes(
        b'LJ001-0001|"So|so\nLJ001-0001|"So|so\nLJ001-0009|a|b\nLJ001-0009|a|c\nbroken\nLJ001-0003|caf\xe9|x\n'
    )
    corpus = dataset("ljspeech", tmp_path)
    assert corpus.recordings() == [
        Recording("wavs/LJ001-0001.wav", "LJ", "so"),
        Recording("wavs/LJ001-0009.wav", "LJ", note="lines 3, 4 of the metadata disagree on what is said"),
    ]
    assert corpus.remarks() == [
        f"{metadata}: 2 lines cannot be read (line 6 is not UTF-8 (byte 0xe9); line 5 has 1 cells, not 3).",
        f"{metadata}: 2 lines name a recording again (line 2: LJ001-0001; line 4: LJ001-0009).",
        f"{metadata}: 1 recordings are in no line, and not used (wavs/LJ001-0002.wav).",
    ]
    commands = tmp_path / "SpeechCommands/speech_commands_v0.02"
    (commands / "validation_list.txt").write_text(
        "bed/026290a7_nohash_0.wav\ncat/0c40e715_nohash_0.wav\nno/x_nohash_1.wav"
    )
    corpus = dataset("speechcommands", tmp_path)
    defects = {recording.id: recording.defect for recording in corpus.recordings() if recording.defect}
    assert defects == {"cat/0c40e715_nohash_0.wav": "the lists put it into validation and test"}
    assert corpus.remarks()[0].endswith("1 files that it names are not there (no/x_nohash_1.wav).")
    (tmp_path / "VCTK-Corpus-0.92/txt/p225/p225_001.txt").write_bytes(b"caf\xe9\n")
    assert dataset("vctk", tmp_path).recordings()[0].note == "its transcript is not UTF-8"
    (tmp_path / "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt").write_bytes(b"84-121123-0000 CAF\xc9\n")
    with pytest.raises(ValueError, match="84-121123.trans.txt: line 1 is not UTF-8"):
        dataset("librispeech", tmp_path).recordings()


def test_nothing_is_downloaded_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(torchaudio_yesno, "download_url_to_file", lambda *_, **__: pytest.fail("went to the network"))
    with pytest.raises(ValueError, match="or set data.download=true"):
        dataset("yesno", tmp_path).recordings()


def test_a_failed_download_is_explained_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(url, archive, **_):
        Path(archive).write_bytes(b"half an archive")
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchaudio_yesno, "download_url_to_file", fail)
    with pytest.raises(RuntimeError, match="data.download: fetching yesno.*no route to host.*data.download=false"):
        dataset("yesno", tmp_path, download=True).recordings()
    assert list(tmp_path.iterdir()) == []


def test_download_unpacks_into_root_once(tmp_path, monkeypatch):
    source = tmp_path / "source"
    write_tree(source, TREES["yesno"])
    urls = []

    def fetch(url, archive, **_):
        urls.append(url)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.add(source / "waves_yesno", "waves_yesno")
        Path(archive).write_bytes(buffer.getvalue())

    monkeypatch.setattr(torchaudio_yesno, "download_url_to_file", fetch)
    for _ in range(2):
        assert dataset("yesno", tmp_path / "root", download=True).recordings() == EXPECTED["yesno"]
    assert len(urls) == 1
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["waves_yesno"]


def test_real_digits(fsdd_root):
    corpus = dataset("fsdd", fsdd_root)
    recordings = corpus.recordings()
    assert Counter(recording.transcript for recording in recordings)["seven"] == len(recordings) // 10
    assert len({recording.speaker for recording in recordings}) == 6
    assert read_audio(corpus.path(recordings[0]))[1] == 8000
