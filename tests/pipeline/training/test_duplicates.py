"""Audio that corpora have in common: found wherever it begins and ends, told by pair, left out."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.tokens.audio_hashes import TABLE, read_audio_hashes, write_audio_hashes
from pipeline.tokens.dataset import TokenDataset
from pipeline.training.configuration import FeedConfig
from pipeline.training.duplicates import Overlap, find_duplicates
from pipeline.training.feed import Feed, open_feed
from tests.prepared_tokens import write_prepared_tokens

Split = Sequence[Sequence[str]]


def write_table(folder: Path, documents: Split) -> None:
    """Documents as the recordings that they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (number, hashlib.sha256(name.encode()).hexdigest()) for number, names in enumerate(documents) for name in names
    ]
    write_audio_hashes(folder, len(rows), rows)


def corpus(folder: Path, **splits: Split) -> Path:
    for split in ("train", "validation", "test"):
        write_table(folder / split, splits.get(split, [[f"{folder.name} {split}"]]))
    return folder


def find(
    mixed: Mapping[str, Path], usual: Path | None = None
) -> tuple[list[tuple[str, str, str, int]], dict[str, str]]:
    sizes = {name: len(np.unique(read_audio_hashes(folder / "train")[0])) for name, folder in mixed.items()}
    found = find_duplicates(mixed, sizes, {**mixed, **({"usual": usual} if usual else {})})
    assert all(one.n_of == sizes[one.corpus] for one in found.overlaps)
    return (
        [(one.corpus, one.other, one.split, one.n_documents) for one in found.overlaps],
        {name: "".join("x" if out else "." for out in mask) for name, mask in found.repeated.items()},
    )


def test_held_out_audio_is_found_in_any_part_of_a_document_and_in_any_corpus(tmp_path: Path) -> None:
    a = corpus(tmp_path / "a", train=[["1"], ["2", "t"], ["v"], ["3"]], test=[["t", "u"]])
    b = corpus(tmp_path / "b", train=[["u"], ["4"]], validation=[["v"]])
    usual = corpus(tmp_path / "usual", test=[["3"], ["5"]])
    overlaps, out = find({"a": a, "b": b}, usual)
    assert overlaps == [
        ("a", "a", "test", 1), ("a", "b", "validation", 1), ("a", "usual", "test", 1), ("b", "a", "test", 1),
    ]  # fmt: skip
    assert out == {"a": ".xxx", "b": "x."}


def test_of_audio_to_train_on_the_first_corpus_keeps_it(tmp_path: Path) -> None:
    a = corpus(tmp_path / "a", train=[["1", "2"], ["3"]])
    b = corpus(tmp_path / "b", train=[["3"], ["2"], ["1", "4"], ["5"]])
    c = corpus(tmp_path / "c", train=[["5"], ["6"], ["1"]])
    overlaps, out = find({"a": a, "b": b, "c": c})
    assert overlaps == [("b", "a", "train", 2), ("c", "a", "train", 1), ("c", "b", "train", 2)]
    # What is new in a document is not given up for what is not.
    assert out == {"a": "..", "b": "xx..", "c": "x.x"}


def test_what_one_corpus_loses_the_next_may_still_have(tmp_path: Path) -> None:
    a = corpus(tmp_path / "a", train=[["1", "t"], ["2"]], test=[["t"]])
    b = corpus(tmp_path / "b", train=[["1"], ["2"]])
    assert find({"a": a, "b": b})[1] == {"a": "x.", "b": ".x"}


def test_corpora_that_have_nothing_in_common_are_left_whole(tmp_path: Path) -> None:
    overlaps, out = find({name: corpus(tmp_path / name, train=[[name]]) for name in "ab"})
    assert overlaps == []
    assert out == {"a": ".", "b": "."}


def test_a_table_is_written_in_parts_and_a_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tokens.audio_hashes._ROWS_AT_ONCE", 3)
    write_table(tmp_path, [["a", "b"], ["c"], ["d", "e"]])
    documents, hashes = read_audio_hashes(tmp_path)
    assert documents.tolist() == [0, 0, 1, 2, 2]
    assert hashes[2] == int(hashlib.sha256(b"c").hexdigest()[:16], 16)
    (tmp_path / TABLE).write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"audio_hashes.npy is no table of audio hashes .*; run prepare-data again"):
        read_audio_hashes(tmp_path)


@pytest.fixture
def mixture(tmp_path: Path) -> dict[str, Path]:
    """Two corpora of a dozen documents each; of the second one, two documents are in the first."""
    folders = {name: tmp_path / name for name in "ab"}
    for folder in folders.values():
        write_prepared_tokens(folder)
        write_table(folder / "train", [[f"{folder.name} {document}"] for document in range(12)])
    write_table(folders["a"] / "test", [["b 3"], ["x"]])
    write_table(folders["b"] / "validation", [["y"], ["z"]])
    write_table(folders["b"] / "test", [["y"], ["z"]])
    write_table(folders["b"] / "train", [["a 5"] if document == 7 else [f"b {document}"] for document in range(12)])
    return folders


def opened(mixture: Mapping[str, Path], duplicates: str) -> Feed:
    shares = {str(folder): 1.0 for folder in mixture.values()}
    return open_feed(mixture["a"], FeedConfig(shares, None, duplicates), Path("cache"), 1.0)


def test_what_is_found_is_told_and_left_out_of_training(mixture: dict[str, Path]) -> None:
    feed = opened(mixture, "drop")
    assert feed.describe_duplicates() == [
        "Of 12 training documents of b, 1 hold audio of the test split of a; they are left out.",
        "Of 12 training documents of b, 1 hold audio of the train split of a; they are left out.",
    ]
    trained = feed.train.corpora["b"]
    everything = TokenDataset.open(mixture["b"] / "train")
    kept = [document for document in range(12) if document not in (3, 7)]
    assert [trained[i].tolist() for i in range(len(trained))] == [everything[i].tolist() for i in kept]
    assert trained.lengths.tolist() == everything.lengths[kept].tolist()
    assert len(feed.train.corpora["a"]) == 12
    # Another training than one that keeps them.
    assert opened(mixture, "keep").content != feed.content


def test_what_is_kept_is_told_too(mixture: dict[str, Path]) -> None:
    feed = opened(mixture, "keep")
    assert len(feed.train.corpora["b"]) == 12
    assert [line.rpartition("; ")[2] for line in feed.describe_duplicates()] == [
        "they are trained on all the same (feed.duplicates=keep)."
    ] * 2


def test_data_of_earlier_versions_are_mixed_only_on_demand(
    mixture: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    (mixture["b"] / "train" / TABLE).unlink()
    with pytest.raises(ValueError, match=r"/b does not say which audio its documents hold.*prepare it again, or mix"):
        opened(mixture, "drop")
    assert opened(mixture, "keep").describe_duplicates() == []
    assert "does not say which audio" in caplog.text


def test_a_corpus_of_which_nothing_is_left_is_refused(mixture: dict[str, Path]) -> None:
    write_table(mixture["b"] / "train", [[f"a {document}"] for document in range(12)])
    with pytest.raises(ValueError, match=r"nothing of b is left to train on: of its 12 training documents 12 hold"):
        opened(mixture, "drop")
    write_table(mixture["b"] / "train", [["b"]] * 3)
    with pytest.raises(ValueError, match=r"lists the audio of 3 documents, and has 12; prepare it again"):
        opened(mixture, "drop")


def test_an_overlap_says_how_many(tmp_path: Path) -> None:
    assert Overlap("b", "a", "test", 1234, 5678).clause == "1,234 hold audio of the test split of a"
