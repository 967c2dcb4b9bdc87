import hashlib
import json
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tokens.shards import TokenDataset, finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

SMALL = Vocabulary(n_codebooks=2, codebook_size=4)
WIDE = Vocabulary(n_codebooks=8, codebook_size=16384)


def documents(n, seed=0, vocabulary=SMALL):
    generator = np.random.default_rng(seed)
    shapes = [(int(frames), vocabulary.n_codebooks) for frames in generator.integers(0, 9, size=n)]
    return [vocabulary.document(generator.integers(0, vocabulary.codebook_size, size=shape)) for shape in shapes]


@pytest.fixture
def split(tmp_path):
    """Three shards of three, no and two documents."""
    contents = documents(5)
    for number, part in enumerate((contents[:3], [], contents[3:])):
        write_shard(shard_path(tmp_path, number), part, SMALL)
    finish_split(tmp_path)
    return tmp_path, contents


def assert_same_documents(dataset, contents):
    assert len(dataset) == len(contents)
    for i, content in enumerate(contents):
        assert dataset[i].dtype == np.int64
        np.testing.assert_array_equal(dataset[i], content)
    np.testing.assert_array_equal(dataset.lengths, [len(content) for content in contents])


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


def test_indices_count_from_either_end_and_stop(split):
    folder, contents = split
    dataset = TokenDataset.open(folder)
    np.testing.assert_array_equal(dataset[-1], contents[-1])
    assert len(list(dataset)) == 5
    for index in (5, -6):
        with pytest.raises(IndexError, match="has 5 documents"):
            dataset[index]


def test_documents_are_copies(split):
    folder, contents = split
    dataset = TokenDataset.open(folder)
    dataset[0][:] = 0
    np.testing.assert_array_equal(dataset[0], contents[0])


def test_a_dataset_is_opened_again_where_it_is_pickled_to(split):
    folder, contents = split
    dataset = TokenDataset.open(folder)
    assert_same_documents(dataset, contents)  # so that files are mapped
    pickled = pickle.dumps(dataset)
    assert pickled == pickle.dumps(TokenDataset.open(folder))  # what was mapped stays behind
    assert_same_documents(pickle.loads(pickled), contents)


@pytest.mark.parametrize("n_documents", [1, 2, 3, 4, 5])
def test_an_excerpt_is_the_first_documents(split, n_documents):
    folder, contents = split
    n_tokens = sum(len(content) for content in contents[:n_documents])
    excerpt = TokenDataset.open(folder).excerpt(n_tokens)
    assert_same_documents(excerpt, contents[:n_documents])
    np.testing.assert_array_equal(np.concatenate(list(excerpt.chunks(7))), np.concatenate(contents[:n_documents]))
    assert excerpt.n_tokens == n_tokens


def test_an_excerpt_has_a_document_at_least_and_no_more_than_there_are(split):
    folder, contents = split
    assert_same_documents(TokenDataset.open(folder).excerpt(1), contents[:1])
    assert_same_documents(TokenDataset.open(folder).excerpt(10**9), contents)


def test_only_the_shards_that_are_read_are_mapped(split, monkeypatch):
    folder, contents = split
    mapped = []
    open_map = np.memmap
    monkeypatch.setattr(np, "memmap", lambda path, **kwargs: mapped.append(path.name) or open_map(path, **kwargs))
    dataset = TokenDataset.open(folder)
    assert mapped == []
    for index in (3, 4, 3):
        np.testing.assert_array_equal(dataset[index], contents[index])
    assert mapped == ["shard_00002.bin"]


def test_a_truncated_shard_is_named(split):
    folder, _ = split
    path = folder / "shard_00002.bin"
    path.write_bytes(path.read_bytes()[:-2])
    for action in (TokenDataset.open, finish_split):
        with pytest.raises(ValueError, match=r"shard_00002\.bin has \d+ bytes, but its description says"):
            action(folder)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_changed_token_is_found_when_the_split_is_opened(split):
    folder, _ = split
    flip(folder / "shard_00000.bin", 2)
    with pytest.raises(ValueError, match=r"shard_00000\.bin has changed since it was written"):
        TokenDataset.open(folder)


def test_a_changed_token_of_a_large_split_is_found_while_it_is_read(split, monkeypatch):
    folder, contents = split
    monkeypatch.setattr("pipeline.tokens.verification.AT_ONCE", 0)
    assert_same_documents(TokenDataset.open(folder), contents)
    flip(folder / "shard_00000.bin", 2)
    dataset = TokenDataset.open(folder)
    with pytest.raises(ValueError, match=r"shard_00000\.bin has changed since it was written"):
        dataset.verify()
    for read in (lambda: dataset[4], lambda: next(dataset.chunks(3)), lambda: dataset.excerpt(1)[0]):
        with pytest.raises(ValueError, match=r"shard_00000\.bin has changed since it was written"):
            read()


def test_one_process_of_a_machine_reads_a_large_split(split, monkeypatch):
    folder, contents = split
    monkeypatch.setattr("pipeline.tokens.verification.AT_ONCE", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    flip(folder / "shard_00000.bin", 2)
    TokenDataset.open(folder).verify()


def test_a_token_out_of_the_vocabulary_never_reaches_a_model(split, monkeypatch):
    folder, contents = split
    path = folder / "shard_00000.bin"
    path.write_bytes(b"\xff\xff" + path.read_bytes()[2:])
    monkeypatch.setattr("pipeline.tokens.shards.Verification", lambda *_: None)
    dataset = TokenDataset.open(folder)
    for read in (lambda: dataset[0], lambda: next(dataset.chunks(100))):
        with pytest.raises(ValueError, match=r"shard_00000\.bin holds the token 65535, outside its vocabulary of 16"):
            read()
    np.testing.assert_array_equal(dataset[1], contents[1])


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
