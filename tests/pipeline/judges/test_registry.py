from types import ModuleType, SimpleNamespace

import pytest

from pipeline.judges import registry
from pipeline.judges.registry import JUDGES, Entry, Options, call_in, call_in_installed, check_presence


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Entry]:
    """One that is here, one whose package is not, one whose package does not work."""
    entries = {
        "here": Entry("here", "Judge", ("json",)),
        "absent": Entry("absent", "Judge", ("json", "no_such_package")),
        "broken": Entry("broken", "Judge", ("json",)),
    }

    def break_down(options: Options) -> None:
        raise OSError("its library\nis gone")

    modules = {"here": SimpleNamespace(Judge=lambda options: options), "broken": SimpleNamespace(Judge=break_down)}

    def import_module(name: str) -> ModuleType | SimpleNamespace:
        return modules[name]

    monkeypatch.setattr(registry, "JUDGES", entries)
    monkeypatch.setattr("pipeline.judges.registry.importlib.import_module", import_module)
    return entries


def test_who_is_not_here_is_left_out_with_the_reason(judges: dict[str, Entry]) -> None:
    options = Options(recogniser="somewhere")
    panel = call_in_installed(options)
    assert panel.judges == {"here": options}
    assert panel.skipped == {
        "absent": "no_such_package is not installed; make judges installs it.",
        "broken": "OSError: its library is gone",
    }


def test_who_is_asked_for_by_name_has_to_be_here(judges: dict[str, Entry]) -> None:
    assert list(call_in(("here",), Options()).judges) == ["here"]
    assert call_in((), Options()).skipped == dict.fromkeys(judges, "not asked for")
    with pytest.raises(ValueError, match="absent needs no_such_package, which is not installed; make judges"):
        check_presence(["here", "absent"])
    with pytest.raises(ValueError, match="broken cannot be called in"):
        call_in(("broken",), Options())


def test_every_judge_is_where_it_is_said_to_be() -> None:
    for entry in JUDGES.values():
        path = entry.module.replace(".", "/") + ".py"
        with open(path) as file:
            assert f"class {entry.judge}:" in file.read()
