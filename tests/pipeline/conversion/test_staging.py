import json
from pathlib import Path

import pytest

from pipeline.conversion.staging import Staging


def write(staging: Staging, is_folder: bool, content: str) -> None:
    file = staging.path / "weights" if is_folder else staging.path
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    if not is_folder:
        staging.path.with_name(f"{staging.path.name}.checksums.json").write_text("{}")


def read(path: Path) -> str:
    return (path / "weights" if path.is_dir() else path).read_text()


@pytest.fixture(params=["folder", "file"])
def is_folder(request: pytest.FixtureRequest) -> bool:
    return request.param == "folder"


def test_a_target_takes_the_place_of_the_one_before(tmp_path: Path, is_folder: bool) -> None:
    target = tmp_path / "deep" / "export"
    for content in ("first", "second"):
        staging = Staging(target)
        write(staging, is_folder, content)
        report = staging.accept({"content": content})
        assert read(target) == content
        assert json.loads(report.read_text()) == {"content": content}
    beside = set() if is_folder else {"export.checksums.json", "export.conversion_report.json"}
    assert {path.name for path in target.parent.iterdir()} == {"export"} | beside


def test_what_is_rejected_leaves_the_one_before_in_its_place(tmp_path: Path, is_folder: bool) -> None:
    target = tmp_path / "export"
    accepted = Staging(target)
    write(accepted, is_folder, "good")
    accepted.accept({})
    for content in ("bad", "worse"):
        rejected = Staging(target)
        write(rejected, is_folder, content)
        report = rejected.reject({"content": content})
        assert read(target) == "good"
        assert read(rejected.rejected / "export") == content
        assert json.loads(report.read_text()) == {"content": content}
        assert report.is_relative_to(rejected.rejected)
    again = Staging(target)
    write(again, is_folder, "better")
    again.accept({})
    assert read(target) == "better"
    assert not again.rejected.exists()
