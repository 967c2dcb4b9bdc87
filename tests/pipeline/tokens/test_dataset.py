"""A split as it is read: documents by their numbers, excerpts, and bytes that have changed."""

import pickle

import numpy as np
import pytest

from pipeline.tokens.dataset import TokenDataset
from tests.pipeline.tokens.token_documents import assert_same_documents


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
    monkeypatch.setattr("pipeline.tokens.dataset.Verification", lambda *_: None)
    dataset = TokenDataset.open(folder)
    for read in (lambda: dataset[0], lambda: next(dataset.chunks(100))):
        with pytest.raises(ValueError, match=r"shard_00000\.bin holds the token 65535, outside its vocabulary of 16"):
            read()
    np.testing.assert_array_equal(dataset[1], contents[1])
