from pathlib import Path

import pytest
import yaml

from pipeline.audio.corpora.configuration import KINDS
from pipeline.audio.corpora.registry import build_corpus

CONF = Path(__file__).parents[4] / "conf" / "data"
COMMON = yaml.safe_load((CONF / "_common.yaml").read_text())


def test_every_kind_has_its_configuration():
    # Further files, as espeak_short, are variants of a kind.
    assert set(KINDS) <= {path.stem for path in CONF.glob("[!_]*.yaml")}


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_is_what_the_corpus_takes(tmp_path, kind):
    options = yaml.safe_load((CONF / f"{kind}.yaml").read_text())
    assert options.pop("kind") == kind
    own = {name: value for name, value in options.items() if name not in COMMON and name != "defaults"}
    if "root" in own:
        own["root"] = str(tmp_path)
    assert build_corpus(kind, own, tmp_path, 0).name == kind
