"""What DVC watches besides: the codec that is taken from elsewhere, and the folders of a mixture."""

import re
import shutil
from pathlib import Path

import hydra
import networkx as nx
import pytest
from dvc.repo import Repo
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.configuration.resolvers import CODE_OF_CODECS, CODE_OF_FEED, watched_codec, watched_mixture

MIXING = CONF.parent / "docs" / "configuration.md"


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


def test_a_codec_behind_a_url_is_not_watched() -> None:
    assert watched_codec("data/a") == "data/a/codec"
    assert watched_codec("s3://bucket/prepared") == CODE_OF_CODECS


def test_the_configuration_says_what_is_watched(tmp_path: Path) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        usual = hydra.compose("config").paths
        taken = hydra.compose("config", ["codec.taken_from=data/a", "feed.mixture={data/b: 1}"]).paths
    assert (usual.codec, usual.mixture) == (CODE_OF_CODECS, CODE_OF_FEED)
    assert (taken.codec, taken.mixture) == ("data/a/codec", "data/b")


def test_the_training_leads_dvc_to_the_stages_that_prepare_the_rest_of_its_mixture(tmp_path: Path) -> None:
    documented = re.search(r"```yaml\n(stages:.*?)```.*?-S '(feed\.mixture=.*?)'", MIXING.read_text(), flags=re.DOTALL)
    assert documented
    stages, mixture = documented.groups()
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        (tmp_path / "params.yaml").write_text(OmegaConf.to_yaml(hydra.compose("config", [mixture]), resolve=True))
    shutil.copy(CONF.parent / "dvc.yaml", tmp_path)
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "dvc.yaml").write_text(stages)
    Repo.init(str(tmp_path), no_scm=True).close()
    with Repo(str(tmp_path)) as repository:
        graph = repository.index.graph
        (training,) = (stage for stage in graph if stage.addressing.endswith("train"))
        before = {stage.addressing for stage in nx.descendants(graph, training)}
    assert {"prepare-data", "prepare@b", "prepare@c"} == {name.rpartition(":")[2] for name in before}
