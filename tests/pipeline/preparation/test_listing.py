from pathlib import Path

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.source import Source
from pipeline.preparation.listing import count_listed, iterate_listing, read_listing, write_listing

RECORDINGS = [
    Recording("a/ü 1.wav", "ann", 'says "no",\nand leaves', "test", note="odd"),
    Recording("b.tar/2.flac", "bob", source=Source("s3://bucket/b.tar", 512, 100, 1.25, 2.5, 1)),
    Recording("c.wav", "bob", defect="broken"),
]


def test_what_is_listed_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "recordings.sqlite"
    assert write_listing(iter(RECORDINGS), path) == 3
    assert count_listed(path) == 3
    assert list(iterate_listing(path)) == RECORDINGS
    assert read_listing(path, 1, 3) == RECORDINGS[1:]
    assert read_listing(path, 3, 9) == []


def test_an_empty_corpus_has_a_listing_too(tmp_path: Path) -> None:
    assert write_listing([], tmp_path / "recordings.sqlite") == 0
    assert list(iterate_listing(tmp_path / "recordings.sqlite")) == []
