"""What training reads: which folders, what tells them from others, and which are refused together."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.configuration.settings import read_settings
from pipeline.plumbing.files import write_json
from pipeline.provenance.prepared_data import write_prepared_identity
from pipeline.training.configuration import FeedConfig
from pipeline.training.feed import corpus_names, open_feed
from tests.pipeline.conftest import Told
from tests.prepared_tokens import write_prepared_tokens

# Of data behind URLs, of which there are none here.
CACHE = Path("cache")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Two corpora in one codec."""
    found = {name: tmp_path / name for name in "ab"}
    for seed, folder in enumerate(found.values()):
        write_prepared_tokens(folder, seed=seed)
        write_json(folder / "codec" / "codec.json", {"seed": 0})
        identity = json.loads((folder / "identity.json").read_text())
        write_prepared_identity(folder, identity["settings"])
    return found


def config(cap: int | None = None, **shares: float) -> FeedConfig:
    return FeedConfig(dict(shares) or None, cap)


def test_what_is_read_is_told_by_content_and_not_by_place(folders: dict[str, Path]) -> None:
    a, b = (str(folder) for folder in folders.values())
    contents = [
        open_feed(folders["a"], feed, CACHE, 1.0).content
        for feed in (
            FeedConfig({a: 0.7, b: 0.3}, None), FeedConfig({a: 7, b: 3}, None), FeedConfig({a: 0.6, b: 0.4}, None),
            FeedConfig({a: 0.7, b: 0.3}, 16), config(16), config(),
        )
    ]  # fmt: skip
    assert contents[0] == contents[1]
    assert len({json.dumps(content) for content in contents}) >= 5
    # Trainings without a mixture are known by what they always were.
    assert isinstance(contents[-1], str)
    moved = folders["b"].rename(folders["b"].with_name("c"))
    assert open_feed(folders["a"], FeedConfig({a: 0.7, str(moved): 0.3}, None), CACHE, 1.0).content == contents[0]


def test_corpora_of_other_codecs_are_refused_with_both_names(folders: dict[str, Path]) -> None:
    mixture = FeedConfig({str(folder): 1.0 for folder in folders.values()}, None)
    identity = json.loads((folders["b"] / "identity.json").read_text())
    write_json(folders["b"] / "codec" / "codec.json", {"seed": 1})
    write_prepared_identity(folders["b"], identity["settings"])
    with pytest.raises(ValueError, match=r"codecs of .*/b and .*/a have the same settings, but each was fitted"):
        open_feed(folders["a"], mixture, CACHE, 1.0)
    write_prepared_identity(folders["b"], identity["settings"] | {"codec.codebook_size": 7})
    with pytest.raises(ValueError, match=r"/b speaks through another codec than .*/a: codec.codebook_size is 7 there"):
        open_feed(folders["a"], mixture, CACHE, 1.0)
    with pytest.raises(
        FileNotFoundError,
        match="nowhere does not exist; prepare the data: .* paths.prepared=nowhere codec.taken_from=/",
    ):
        open_feed(folders["a"], FeedConfig({"nowhere": 1.0}, None), CACHE, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixture": {}}, r"feed\.mixture is \{\}; it takes prepared folders and their shares"),
        ({"mixture": [1]}, r"feed\.mixture is \(1,\); it takes"),
        ({"mixture": {"a": 0}}, r"feed\.mixture gives a the share 0; give it a number above 0"),
        ({"mixture": {"a": "half"}}, "gives a the share 'half'"),
        ({"mixture": {" ": 1}}, "names ' '; it takes folders"),
        ({"max_document_tokens": 1}, "max_document_tokens is 1; set it to 2 or more"),
    ],
)
def test_a_feed_that_cannot_be_is_refused_by_its_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings(FeedConfig, {"mixture": None, "max_document_tokens": None} | values, "feed")


def test_corpora_are_called_by_the_ends_of_their_paths() -> None:
    assert corpus_names(["data/prepared_a", "data/prepared_b/"]) == ["prepared_a", "prepared_b"]
    assert corpus_names(["/x/a/prepared", "/x/b/prepared"]) == ["a-prepared", "b-prepared"]
    assert corpus_names(["s3://bücket/a,b"]) == ["a_b"]
    with pytest.raises(ValueError, match="names a folder twice"):
        corpus_names(["data/a", "data/a/"])


def test_a_mixture_is_trained_and_validated_by_corpus(
    folders: dict[str, Path], tmp_path: Path, typed: Callable[..., Told]
) -> None:
    overrides = [
        "debug=smoke", "data=espeak", "tracking=none", "trainer.sequence_length=32", f"paths.prepared={folders['a']}",
        f"paths.outputs={tmp_path / 'outputs'}", f"feed.mixture={{{folders['a']}: 0.7, {folders['b']}: 0.3}}",
    ]  # fmt: skip
    status, *told = typed("train", *overrides)
    assert status == 0, told
    outputs = tmp_path / "outputs" / "train"
    with (outputs / "validation.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    of_both = [float(last[f"val/loss/{name}"]) for name in "ab"]
    assert min(of_both) < float(last["val/loss"]) < max(of_both)
    assert (outputs / "checkpoint.ckpt").exists()
