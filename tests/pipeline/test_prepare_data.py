"""The first stage as a whole: a folder of good and bad files to prepared data."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import pytest
import soundfile
import torch
from omegaconf import DictConfig

from pipeline import prepare_data
from pipeline.audio.codecs.storage import load_codec
from pipeline.audio.reading import read_audio
from pipeline.audio.splitting import SPLITS
from pipeline.configuration.composed import CONF, REPOSITORY
from pipeline.preparation import encoding
from pipeline.tokens.dataset import TokenDataset

RATE = 8000
N_GOOD = 24


def speech(seconds: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)) / RATE
    harmonics = sum(np.sin(k * phase + k) / k for k in range(1, 11))
    return 0.1 * harmonics * np.maximum(np.sin(20 * time), 0) + 1e-3 * generator.standard_normal(len(time))


def write_good_files(root: Path, n: int) -> None:
    """Files of two speakers, no two of one length."""
    for i in range(n):
        path = root / f"speaker_{i % 2}" / f"{i:02}.{'flac' if i % 3 else 'wav'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech(0.4 + 0.01 * i, i), RATE)


def write_bad_files(root: Path) -> dict[str, str]:
    """Files that cannot be used, and how the reason for each begins."""
    folder = root / "bad"
    folder.mkdir()
    good = speech(0.5, 99)
    (folder / "text.wav").write_text("RIFF, it says, but it is no sound.")
    (folder / "nothing.mp3").write_bytes(b"")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "clipped.wav", np.clip(100 * good, -1, 1), RATE)
    soundfile.write(folder / "short.ogg", good[:800], RATE)
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(good)) == 9, np.nan, good), RATE, subtype="FLOAT")
    whole = (root / "speaker_0" / "00.wav").read_bytes()
    (folder / "torn.wav").write_bytes(whole[: len(whole) // 2])
    # Copies: of the very bytes, in another format, and with the channel doubled.
    (root / "zz").mkdir()
    shutil.copy(root / "speaker_1" / "01.flac", root / "zz" / "same.flac")
    audio = soundfile.read(root / "speaker_0" / "02.flac", dtype="int16")[0]
    soundfile.write(root / "zz" / "format.wav", audio, RATE)
    audio = soundfile.read(root / "speaker_0" / "06.wav", dtype="int16")[0]
    soundfile.write(root / "zz" / "stereo.wav", np.stack([audio, audio], axis=1), RATE)
    return {
        "bad/text.wav": "not a readable audio file",
        "bad/nothing.mp3": "the file is empty",
        "bad/silent.wav": "silent",
        "bad/clipped.wav": "clipped",
        "bad/short.ogg": "too short",
        "bad/nan.wav": "holds NaN",
        "bad/torn.wav": "damaged: holds 0.2 of 0.4 s",
        "zz/same.flac": "duplicate of speaker_1/01.flac",
        "zz/format.wav": "duplicate of speaker_0/02.flac",
        "zz/stereo.wav": "duplicate of speaker_0/06.wav",
    }


def overrides(root: Path, folder: Path, *more: str) -> list[str]:
    return [
        "data=folder", f"data.root={root}", "codec=mu_law", "data.workers=1", "data.shard_utterances=4",
        "data.reference_utterances=3", "data.split.validation=0.15", "data.split.test=0.15",
        f"paths.prepared={folder / 'prepared'}", f"paths.cache={folder / 'cache'}", *more,
    ]  # fmt: skip


def prepare(root: Path, folder: Path, *more: str) -> Path:
    """Run the stage in this process."""
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        config: DictConfig = hydra.compose("config", overrides(root, folder, *more))
    prepare_data.main(config)
    return folder / "prepared"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in(cache: Path) -> set[str]:
    """What a finished stage leaves in its cache, but for the lock."""
    return {path.name for path in cache.iterdir()} - {"preparing.lock"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("mixed")
    write_good_files(root, N_GOOD)
    return root, write_bad_files(root)


@pytest.fixture(scope="module")
def prepared(mixed: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line makes of good and bad files."""
    folder = tmp_path_factory.mktemp("stage")
    arguments = overrides(
        mixed[0], folder, "data.screening.max_rejected_fraction=0.5", "hydra.run.dir=.", "hydra.output_subdir=null"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-m", "pipeline.prepare_data", *arguments], cwd=folder, env=environment, check=True)
    assert left_in(folder / "cache") == set()
    return folder / "prepared"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_good_files(tmp_path / "good", 14)
    return tmp_path / "good"


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[str]]:
    """Let only so many shards be written; returns the list of those that are."""
    write = encoding.write_shard

    def allow(n_shards: int | None) -> list[str]:
        written: list[str] = []

        def write_or_die(path: Path, *arguments: object) -> None:
            if len(written) == n_shards:
                raise KeyboardInterrupt
            write(path, *arguments)
            written.append(f"{path.parent.name}/{path.stem}")

        monkeypatch.setattr(encoding, "write_shard", write_or_die)
        return written

    return allow


def manifest(prepared: Path) -> dict[str, dict[str, str]]:
    with (prepared / "manifest.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_the_manifest_tells_why_a_file_is_not_used(prepared: Path, mixed: tuple[Path, dict[str, str]]) -> None:
    rows, (_, reasons) = manifest(prepared), mixed
    assert len(rows) == N_GOOD + len(reasons)
    rejected = {name: row["reason"] for name, row in rows.items() if row["status"] == "rejected"}
    assert rejected.keys() == reasons.keys()
    for name, beginning in reasons.items():
        assert rejected[name].startswith(beginning)
    assert {row["split"] for name, row in rows.items() if name in reasons} == {""}
    assert {row["split"] for name, row in rows.items() if name not in reasons} == set(SPLITS)


def test_every_document_is_a_file_of_its_split_and_no_sound_is_in_two(
    prepared: Path, mixed: tuple[Path, dict[str, str]]
) -> None:
    root, rows, codec = mixed[0], manifest(prepared), load_codec(prepared / "codec")
    audio = {name: read_audio(root / name)[0] for name, row in rows.items() if row["status"] == "used"}
    name_of_length = {len(samples): name for name, samples in audio.items()}
    assert len(name_of_length) == len(audio) == N_GOOD
    seen = []
    for split in SPLITS:
        tokens = TokenDataset.open(prepared / split)
        for document in tokens:
            decoded = codec.decode(tokens.vocabulary.tokens_to_codes(document)).numpy()
            name = name_of_length[len(decoded)]
            assert rows[name]["split"] == split
            assert np.corrcoef(decoded, audio[name])[0, 1] > 0.999
            seen.append(name)
    assert sorted(seen) == sorted(audio)


def test_the_data_card_counts_what_is_there(prepared: Path) -> None:
    card = json.loads((prepared / "data_card.json").read_text())
    assert (card["recordings"], card["rejected_count"]) == (N_GOOD + 10, 10)
    for split in SPLITS:
        tokens, row = TokenDataset.open(prepared / split), card["splits"][split]
        assert (row["utterances"], row["tokens"]) == (len(tokens), tokens.n_tokens)
        seconds = sum(float(r["seconds"]) for r in manifest(prepared).values() if r["split"] == split)
        assert row["seconds"] == pytest.approx(seconds, abs=0.01)
    assert (prepared / "data_card.md").read_text().startswith("# Data card: folder")


def test_examples_are_test_recordings_under_their_document_numbers(
    prepared: Path, mixed: tuple[Path, dict[str, str]]
) -> None:
    rows = json.loads((prepared / "examples" / "examples.json").read_text())
    tokens = TokenDataset.open(prepared / "test")
    assert 0 < len(rows) <= len(tokens)
    for row in rows:
        example, _ = soundfile.read(prepared / "examples" / row["file"])
        recorded, _ = read_audio(mixed[0] / row["utterance"])
        np.testing.assert_allclose(example, recorded, atol=1e-4)
        assert manifest(prepared)[row["utterance"]]["split"] == "test"
        assert tokens.lengths[row["document"]] == len(example) + 2


def test_too_many_bad_files_fail_naming_setting_and_files(mixed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"10 of 34 recordings .*data\.screening\.max_rejected_fraction") as caught:
        prepare(mixed[0], tmp_path)
    assert "bad/clipped.wav: clipped" in str(caught.value)
    assert not (tmp_path / "prepared").exists()
    assert str(tmp_path / "prepared.refused" / "manifest.csv") in str(caught.value)


def test_what_a_refusal_found_is_on_the_disk_and_good_data_stay(
    mixed: tuple[Path, dict[str, str]], good: Path, tmp_path: Path
) -> None:
    before = contents(prepare(good, tmp_path))
    with pytest.raises(ValueError, match="cannot be used"):
        prepare(mixed[0], tmp_path)
    assert contents(tmp_path / "prepared") == before
    rows = manifest(tmp_path / "prepared.refused")
    assert {name for name, row in rows.items() if row["status"] == "rejected"} == mixed[1].keys()
    # Too few speakers are found out only after the inspection.
    with pytest.raises(ValueError, match=r"needs at least 3 speakers.*prepared\.refused"):
        prepare(good, tmp_path, "data.split.by=speaker")
    assert len(manifest(tmp_path / "prepared.refused")) == 14
    prepare(good, tmp_path)
    assert not (tmp_path / "prepared.refused").exists()


def test_pieces_of_long_recordings_are_encoded_as_they_would_be_alone(tmp_path: Path) -> None:
    for index in range(5):
        path = tmp_path / "long" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, speech(3.0 + index, index), RATE)
    prepared = prepare(tmp_path / "long", tmp_path, "data.utterances.max_seconds=1")
    assert not (prepared / "long_recordings").exists()
    codec, found = load_codec(prepared / "codec"), 0
    pieces = {i: read_audio(tmp_path / "long" / f"{i}.wav")[0].reshape(3 + i, RATE) for i in range(5)}
    expected = {codec.encode(torch.from_numpy(p)).numpy().tobytes() for rows in pieces.values() for p in rows}
    for split in SPLITS:
        tokens = TokenDataset.open(prepared / split)
        for document in tokens:
            assert tokens.vocabulary.tokens_to_codes(document).numpy().tobytes() in expected
            found += 1
    assert found == len(expected) == 3 + 4 + 5 + 6 + 7


@pytest.mark.parametrize("n_shards", [0, 1, 4])
def test_an_interrupted_run_goes_on_where_it_was(good: Path, tmp_path: Path, interrupt, n_shards: int) -> None:
    first = interrupt(n_shards)
    with pytest.raises(KeyboardInterrupt):
        prepare(good, tmp_path / "cut")
    assert not (tmp_path / "cut" / "prepared").exists()
    second = interrupt(None)
    resumed = prepare(good, tmp_path / "cut")
    assert len(first) == n_shards
    assert not set(first) & set(second)
    assert contents(resumed) == contents(prepare(good, tmp_path / "whole"))
    assert left_in(tmp_path / "cut" / "cache") == set()


def rename_all(root: Path) -> None:
    for path in sorted(root.rglob("*.*")):
        path.rename(path.with_stem(f"{path.stem}_take"))


def move_to_one_speaker(root: Path) -> None:
    (root / "speaker_0").rename(root / "speaker_00")


def replace_one(root: Path) -> None:
    soundfile.write(root / "speaker_0" / "00.wav", speech(0.4, 77), RATE)


@pytest.mark.parametrize("change", [rename_all, move_to_one_speaker, replace_one])
def test_a_corpus_that_changed_meanwhile_is_encoded_anew(
    good: Path, tmp_path: Path, interrupt, change: Callable[[Path], None]
) -> None:
    """Else shards of the old split would stand beside those of the new one."""
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        prepare(good, tmp_path / "cut")
    change(good)
    interrupt(None)
    assert contents(prepare(good, tmp_path / "cut")) == contents(prepare(good, tmp_path / "whole"))


def test_a_new_run_replaces_all_of_the_old_one(good: Path, tmp_path: Path) -> None:
    first = contents(prepare(good, tmp_path, "data.shard_utterances=1"))
    second = contents(prepare(good, tmp_path))
    assert "train/shard_00009.bin" in first
    assert "train/shard_00009.bin" not in second
    assert second == contents(prepare(good, tmp_path / "fresh"))


def test_prepared_may_be_a_link_to_a_larger_disk(good: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "prepared"
    disk.mkdir(parents=True)
    (disk / "old").write_text("")
    (tmp_path / "prepared").symlink_to(disk)
    prepare(good, tmp_path)
    assert (tmp_path / "prepared").is_symlink()
    assert contents(disk) == contents(prepare(good, tmp_path / "fresh"))


@pytest.mark.parametrize("name", ["shard_utterances", "reference_utterances", "workers"])
def test_portions_of_nothing_are_refused(good: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.{name}"):
        prepare(good, tmp_path, f"data.{name}=0")
