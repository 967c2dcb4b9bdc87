from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.entry.positional import gathered


def test_words_that_set_nothing_become_one_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1e-3").mkdir()
    words = ["HEAD~1", "output=json", "lr=1e-3", "lr=2e-3", "--config-dir", "elsewhere", "~model", "+a.b=1", "x,y"]
    *others, names = gathered(words, "compared")
    assert others == ["output=json", "lr=2e-3", "--config-dir", "elsewhere", "~model", "+a.b=1"]
    assert names == "compared=['HEAD~1','lr=1e-3','x,y']"


def test_hydra_reads_every_name_as_it_was_typed() -> None:
    names = ["it's", "a,b", "[c]", "d e", "{f: g}", "1e3", "null", "ünïcode"]
    (setting,) = gathered(names, "compared")
    assert OverridesParser.create().parse_override(setting).value() == names


def test_without_names_nothing_is_set() -> None:
    assert gathered(["output=json"], "compared") == ["output=json"]
