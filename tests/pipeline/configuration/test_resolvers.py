"""What DVC watches besides: the codec that is taken from elsewhere, and the folders of a mixture."""

from pathlib import Path

import hydra
import pytest

from pipeline.configuration.composed import CONF
from pipeline.configuration.resolvers import CODE_OF_CODECS, CODE_OF_FEED, watched_mixture


@pytest.mark.parametrize(
    ("folders", "watched"),
    [
        ([], CODE_OF_FEED),
        (["data/prepared"], CODE_OF_FEED),
        (["data/prepared", "data/prepared_b"], "data/prepared_b"),
        (["./data/prepared/", "s3://bucket/a"], CODE_OF_FEED),
        (["data/mixed/a", "data/prepared", "data/mixed/b"], "data/mixed"),
        # What holds these holds the usual data too, or the repository.
        (["data/a", "data/b"], CODE_OF_FEED),
        (["../a", "../b"], CODE_OF_FEED),
    ],
)
def test_one_name_stands_for_the_folders_of_a_mixture(folders: list[str], watched: str) -> None:
    assert watched_mixture(dict.fromkeys(folders, 1.0), "data/prepared") == watched


def test_the_configuration_says_what_is_watched(tmp_path: Path) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        usual = hydra.compose("config").paths
        taken = hydra.compose("config", ["codec.taken_from=data/a", "feed.mixture={data/b: 1}"]).paths
    assert (usual.codec, usual.mixture) == (CODE_OF_CODECS, CODE_OF_FEED)
    assert (taken.codec, taken.mixture) == ("data/a/codec", "data/b")
