import hashlib
import importlib.util
import pickle
import shutil
import time

import numpy as np
import pytest

from pipeline.audio.corpora import espeak_synthesis
from pipeline.audio.corpora.configuration import EspeakConfig
from pipeline.audio.corpora.espeak import EspeakCorpus
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.reading import read_audio

# f3 is breathy: espeak-ng draws its breath from a generator that it seeds with the time of day.
VOICES = ("en-us", "en-us+f3", "en-gb-x-rp")


def config(**changes) -> EspeakConfig:
    values = {"minutes": 0.5, "voices": VOICES, "words_per_minute": (140, 200), "pitch": (30, 70)}
    return EspeakConfig(**(values | changes))


def digests(folder) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def count_synthesised(monkeypatch):
    spoken = []
    synthesise = espeak_synthesis._synthesise_shard
    monkeypatch.setattr(
        espeak_synthesis, "_synthesise_shard", lambda folder, shard: spoken.append(shard) or synthesise(folder, shard)
    )
    return spoken


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, espeak_available):
    corpus = EspeakCorpus(config(), tmp_path_factory.mktemp("cache"), seed=0)
    return corpus, corpus.recordings()


def test_recordings_last_as_long_as_asked(spoken):
    corpus, recordings = spoken
    lengths = []
    for recording in recordings:
        audio, rate = read_audio(corpus.path(recording))
        assert rate == 22050
        assert 0.01 < np.sqrt(np.mean(audio**2)) < 0.5
        lengths.append(len(audio) / rate)
    assert sum(lengths[:-1]) < 30 <= sum(lengths)
    assert len({recording.id for recording in recordings}) == len(recordings)
    assert len({recording.transcript for recording in recordings}) == len(recordings)
    assert {recording.speaker for recording in recordings} <= set(VOICES)


def test_bytes_repeat_at_another_time_in_another_place(spoken, tmp_path):
    corpus, _ = spoken
    time.sleep(1.1)
    again = EspeakCorpus(config(), tmp_path, seed=0)
    again.recordings()
    assert digests(again.folder) == digests(corpus.folder)


def test_a_finished_synthesis_is_reused_and_a_longer_one_continues_it(spoken, tmp_path, count_synthesised):
    corpus, recordings = spoken
    cache = shutil.copytree(corpus.cache, tmp_path / "cache")
    assert EspeakCorpus(config(), cache, seed=0).recordings() == recordings
    assert count_synthesised == []
    longer = EspeakCorpus(config(minutes=5), cache, seed=0).recordings()
    assert longer[: len(recordings)] == recordings
    assert len(count_synthesised) == len({recording.id.split("/")[0] for recording in longer}) - 1


def test_an_interrupted_synthesis_resumes(spoken, tmp_path, count_synthesised):
    corpus, recordings = spoken
    shutil.copytree(corpus.cache, tmp_path / "cache")
    damaged = EspeakCorpus(config(), tmp_path / "cache", seed=0)
    (damaged.folder / recordings[3].id).unlink()
    assert damaged.recordings() == recordings
    assert len(count_synthesised) == 1
    assert digests(damaged.folder)[recordings[3].id] == digests(corpus.folder)[recordings[3].id]


def test_a_failing_shard_leaves_nothing(tmp_path, espeak_available, monkeypatch):
    corpus = EspeakCorpus(config(), tmp_path, seed=0)
    worker = tmp_path / "worker.py"
    worker.write_text("import sys; open(sys.argv[1] + '/000.wav', 'w').close(); sys.exit('out of breath')")
    monkeypatch.setattr(espeak_synthesis, "WORKER", worker)
    monkeypatch.setattr(EspeakCorpus, "_check_voices", lambda self: None)
    with pytest.raises(RuntimeError, match="espeak-ng failed: out of breath"):
        corpus.recordings()
    assert list(corpus.folder.iterdir()) == []


@pytest.mark.parametrize("change", [{"voices": ("en-us",)}, {"pitch": (30, 71)}, {"words_per_minute": (141, 200)}])
def test_other_settings_lie_elsewhere(tmp_path, espeak_available, change):
    assert EspeakCorpus(config(**change), tmp_path, 0).folder != EspeakCorpus(config(), tmp_path, 0).folder
    assert EspeakCorpus(config(), tmp_path, 1).folder != EspeakCorpus(config(), tmp_path, 0).folder


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("en-gb", "data.voices: espeak-ng has no voice 'en-gb'; did you mean `en-gb-x-rp`|`en-gb-x-rp`"),
        ("en-us+f33", "data.voices: espeak-ng has no variant 'f33'.*`f3`"),
        ("klatt", "data.voices: espeak-ng has no voice 'klatt'"),
    ],
)
def test_unknown_voices_are_named(tmp_path, espeak_available, voice, message):
    with pytest.raises(ValueError, match=message):
        EspeakCorpus(config(voices=("en-us", voice)), tmp_path, 0).recordings()


def test_a_long_data_path_is_linked_somewhere_short(spoken, tmp_path, monkeypatch):
    corpus, _ = spoken
    loader = pytest.importorskip("espeakng_loader")
    deep = tmp_path / ("long" * 30) / ("way" * 30)
    (deep / "espeakng_loader").mkdir(parents=True)
    (deep / "data").symlink_to(loader.get_data_path())
    (deep / "espeakng_loader" / "__init__.py").write_text(
        f"def get_library_path(): return {str(loader.get_library_path())!r}\n"
        f"def get_data_path(): return {str(deep / 'data')!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(deep))
    far = EspeakCorpus(config(), tmp_path / "cache", seed=0)
    far.recordings()
    assert digests(far.folder) == digests(corpus.folder)


def test_missing_package_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'melisma\[espeak\]'"):
        EspeakCorpus(config(), tmp_path, 0).recordings()


def test_corpus_pickles(spoken):
    corpus, recordings = spoken
    copy = pickle.loads(pickle.dumps(corpus))
    np.testing.assert_array_equal(read_audio(copy.path(recordings[0]))[0], read_audio(corpus.path(recordings[0]))[0])


def test_options_of_the_configuration_group(tmp_path):
    options = {"minutes": 60, "voices": ["en-us"], "words_per_minute": [140, 200], "pitch": [30, 70]}
    corpus = build_corpus("espeak", options, tmp_path, 3)
    assert corpus == EspeakCorpus(EspeakConfig(60, ("en-us",), (140, 200), (30, 70)), tmp_path, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"minutes": 0},
        {"minutes": "long"},
        {"voices": ()},
        {"voices": "en-us"},
        {"voices": ("en-us", "en-us")},
        {"words_per_minute": (200, 140)},
        {"words_per_minute": (10, 140)},
        {"pitch": (30,)},
        {"pitch": (0.5, 20)},
    ],
)
def test_configuration_names_the_key(change):
    with pytest.raises(ValueError, match=f"data.{next(iter(change))}"):
        config(**change)
