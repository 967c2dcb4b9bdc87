"""Shards as they are written, and what is refused when they are opened."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from tests.pipeline.tokens.token_documents import SMALL, WIDE, assert_same_documents, documents


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([SMALL, WIDE]).flatmap(
        lambda vocabulary: st.tuples(
            st.just(vocabulary),
            st.lists(
                st.lists(
                    st.lists(st.integers(0, vocabulary.size - 1), min_size=1, max_size=9).map(np.array), max_size=4
                ),
                min_size=1,
                max_size=4,
            ).filter(any),
        )
    )
)
def test_documents_are_read_as_they_were_written(case):
    vocabulary, shards = case
    with TemporaryDirectory() as folder:
        for number, part in enumerate(shards):
            write_shard(shard_path(folder, number), part, vocabulary)
        finish_split(folder, len(shards))
        dataset = TokenDataset.open(folder)
        contents = [document for part in shards for document in part]
        assert_same_documents(dataset, contents)
        assert dataset.vocabulary == vocabulary
        assert dataset.n_tokens == sum(len(content) for content in contents)
        for size in (1, 5, 1000):
            np.testing.assert_array_equal(np.concatenate(list(dataset.chunks(size))), np.concatenate(contents))
        dataset.verify()


@pytest.mark.parametrize(("vocabulary", "dtype"), [(SMALL, "<u2"), (WIDE, "<u4")])
def test_a_shard_describes_itself(tmp_path, vocabulary, dtype):
    contents = documents(3, vocabulary=vocabulary)
    summary = write_shard(shard_path(tmp_path, 7), contents, vocabulary)

    data = (tmp_path / "shard_00007.bin").read_bytes()
    description = json.loads((tmp_path / "shard_00007.json").read_text())
    np.testing.assert_array_equal(np.frombuffer(data, dtype), np.concatenate(contents))
    assert description == {
        "format": 2,
        "vocabulary": {"n_codebooks": vocabulary.n_codebooks, "codebook_size": vocabulary.codebook_size},
        "dtype": dtype,
        "sha256": hashlib.sha256(data).hexdigest(),
        "lengths": [len(content) for content in contents],
    }
    assert summary.n_documents == 3
    assert summary.n_tokens == len(np.concatenate(contents))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard_00007.bin", "shard_00007.json"]


def test_the_index_counts_everything(split):
    folder, contents = split
    index = json.loads((folder / "index.json").read_text())
    assert index["n_documents"] == 5
    assert index["n_tokens"] == sum(len(content) for content in contents)
    assert [shard["name"] for shard in index["shards"]] == ["shard_00000", "shard_00001", "shard_00002"]
    assert [shard["n_documents"] for shard in index["shards"]] == [3, 0, 2]


def test_a_truncated_shard_is_named(split):
    folder, _ = split
    path = folder / "shard_00002.bin"
    path.write_bytes(path.read_bytes()[:-2])
    for action in (TokenDataset.open, finish_split):
        with pytest.raises(ValueError, match=r"shard_00002\.bin has \d+ bytes, but its description says"):
            action(folder)


@pytest.mark.parametrize("lengths", [[-2, 100], [0, 5], [2.0], [True], ["3"], None, {"a": 1}, [2**60]])
def test_lengths_that_cannot_be_are_named(split, lengths):
    folder, _ = split
    path = folder / "shard_00000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lengths": lengths}))
    with pytest.raises(ValueError, match=r"shard_00000\.json describes no shard"):
        TokenDataset.open(folder)


def test_moved_borders_of_documents_are_found(split):
    folder, _ = split
    path = folder / "shard_00000.json"
    description = json.loads(path.read_text())
    first, second, *rest = description["lengths"]
    path.write_text(json.dumps(description | {"lengths": [first + 1, second - 1, *rest]}))
    with pytest.raises(ValueError, match=r"shard_00000\.bin is not the shard that .*index\.json lists"):
        TokenDataset.open(folder)


@pytest.mark.parametrize("name", ["n_documents", "n_tokens"])
def test_totals_that_do_not_add_up_are_named(split, name):
    folder, _ = split
    path = folder / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {name: index[name] + 1}))
    with pytest.raises(ValueError, match=r"index\.json counts other documents or tokens"):
        TokenDataset.open(folder)


def test_a_shard_written_after_the_index_is_refused(split):
    folder, _ = split
    write_shard(shard_path(folder, 0), documents(3, seed=1), SMALL)
    with pytest.raises(ValueError, match=r"shard_00000\.bin is not the shard that .*index\.json lists"):
        TokenDataset.open(folder)


@pytest.mark.parametrize(
    ("lost", "n_shards", "message"),
    [
        ([1], None, "shard_00001 is missing from the split of 2 shards"),
        ([2], 3, "shard_00002 is missing from the split of 3 shards"),
        ([], 2, "shard_00002 does not belong to the split of 2 shards"),
    ],
)
def test_a_split_with_the_wrong_shards_is_refused(split, lost, n_shards, message):
    folder, _ = split
    for number in lost:
        shard_path(folder, number).unlink()
        shard_path(folder, number).with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=message):
        finish_split(folder, n_shards)


@pytest.mark.parametrize("suffix", ["bin", "json"])
def test_half_a_shard_is_refused(split, suffix):
    folder, _ = split
    (folder / f"shard_00002.{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"shard_00002\.{suffix} does not exist"):
        finish_split(folder)


def test_shards_of_two_vocabularies_are_refused(split):
    folder, _ = split
    write_shard(shard_path(folder, 3), documents(1, vocabulary=WIDE), WIDE)
    with pytest.raises(ValueError, match=r"shard_00003\.bin has Vocabulary\(n_codebooks=8"):
        finish_split(folder)


def test_a_split_without_documents_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no documents; use more recordings"):
        finish_split(tmp_path)
    write_shard(shard_path(tmp_path, 0), [], SMALL)
    with pytest.raises(ValueError, match="holds no documents"):
        finish_split(tmp_path)


def test_an_unfinished_split_is_not_opened(tmp_path):
    write_shard(shard_path(tmp_path, 0), documents(1), SMALL)
    with pytest.raises(FileNotFoundError, match=r"index\.json does not exist"):
        TokenDataset.open(tmp_path)


@pytest.mark.parametrize("name", ["index.json", "shard_00000.json"])
def test_files_of_another_format_are_named(split, name):
    folder, _ = split
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | {"format": 3}))
    with pytest.raises(ValueError, match=rf"{name} is not of token format 2"):
        TokenDataset.open(folder)
    (folder / name).write_text(json.dumps({"format": 2}))
    with pytest.raises(ValueError, match=rf"{name} (lists|describes) no shard"):
        TokenDataset.open(folder)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (np.array([1, 16, 2]), "tokens from 1 to 16, outside its vocabulary of 16"),
        (np.array([-1, 8]), "tokens from -1 to 8"),
        (np.array([1.0, 2.0]), "type float64"),
        (np.zeros((1, 2), np.int64), r"shape \[1, 2\]"),
        (np.zeros(0, np.int64), r"shape \[0\]"),
    ],
)
def test_bad_documents_are_refused_before_anything_is_written(tmp_path, document, message):
    with pytest.raises(ValueError, match=f"Document 1 for .*{message}"):
        write_shard(shard_path(tmp_path, 0), [np.array([1, 2]), document], SMALL)
    assert list(Path(tmp_path).iterdir()) == []
