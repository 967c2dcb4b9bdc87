import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.source import Source
from pipeline.preparation import inspection
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.preparation.listing import write_listing

LENIENT = ScreeningConfig(
    silence_rms=1e-4,
    max_clipped_fraction=0.01,
    max_rejected_fraction=1.0,
    damaged="skip",
    min_sample_rate=4000,
    max_sample_rate=768_000,
    max_hours=24,
)


@pytest.fixture
def found_in(inspect, tmp_path: Path):
    def find(corpus):
        work = inspect(corpus, tmp_path, 0.3, LENIENT)
        inspections = list(work.findings())
        assert [i.recording for i in inspections] == corpus.recordings()
        return {i.recording.id: i for i in inspections}

    return find


def test_a_good_recording_is_described(make_corpus, make_voice, found_in) -> None:
    audio = make_voice(0.5, 1)
    found = found_in(make_corpus({"s/a": audio}))["s/a"]
    assert found.reason == ""
    assert found.seconds == 0.5
    assert found.sha256 == hashlib.sha256(audio.tobytes()).hexdigest()


def test_every_recording_that_cannot_be_used_has_its_reason(make_corpus, make_voice, found_in) -> None:
    good = make_voice(1.0, 1)
    found = found_in(
        make_corpus(
            {
                "s/good": good,
                "s/torn": "truncated: 3 of the announced 9 samples are there",
                "s/silent": np.zeros(8000, np.float32),
                "s/clipped": np.clip(good * 50, -1, 1),
                "s/short": good[:1000],
                "s/empty": good[:0],
                "s/nan": np.where(np.arange(8000) == 70, np.nan, good).astype(np.float32),
            }
        )
    )
    assert {name.removeprefix("s/"): i.reason.split(":")[0] for name, i in found.items()} == {
        "good": "", "torn": "truncated", "silent": "silent", "clipped": "clipped", "short": "too short",
        "empty": "empty", "nan": "holds NaN or infinite samples",
    }  # fmt: skip
    assert (found["s/torn"].seconds, found["s/torn"].sha256) == (0.0, "")
    assert found["s/short"].seconds == 0.125
    assert len(found["s/short"].sha256) == 64


def test_what_is_known_of_an_unchanged_file_is_not_sought_again(
    make_corpus, make_voice, inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus({f"s/{i}": make_voice(0.4 + 0.01 * i, i) for i in range(5)} | {"s/short": make_voice(0.1, 9)})
    before = [(i.recording.id, i.sha256) for i in inspect(corpus, tmp_path, 0.3).findings()]
    read: list[str] = []
    survey = inspection.survey
    monkeypatch.setattr(
        inspection, "survey", lambda place, *rest: (read.append(Path(place.path).stem), survey(place, *rest))[1]
    )
    assert [(i.recording.id, i.sha256) for i in inspect(corpus, tmp_path, 0.3).findings()] == before
    # What was against a file may have gone.
    assert read == ["short"]
    path = Path(corpus.source(corpus.recordings()[2]).path)
    status = path.stat()
    samples = bytearray(path.read_bytes())
    samples[-3] ^= 1
    path.write_bytes(samples)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = [(i.recording.id, i.sha256) for i in inspect(corpus, tmp_path, 0.3).findings()]
    assert read == ["short", "2", "short"]
    assert {name for name, _ in set(after) - set(before)} == {"s/2"}


def test_a_listing_of_other_recordings_is_inspected_anew(make_corpus, make_voice, inspect, tmp_path: Path) -> None:
    first = make_corpus({f"s/{i}": make_voice(0.4, i) for i in range(3)})
    inspect(first, tmp_path)
    second = make_corpus({f"t/{i}": make_voice(0.5, i) for i in range(3)})
    assert [i.recording.id for i in inspect(second, tmp_path).findings()] == ["t/0", "t/1", "t/2"]
    stale = inspect(second, tmp_path)
    inspect(first, tmp_path)
    (tmp_path / "000000.json").write_text('{"recordings": "others", "found": []}')
    with pytest.raises(ValueError, match="000000.json was found in other recordings"):
        list(stale.findings())


def test_a_recording_that_kills_its_process_is_named_and_its_neighbours_are_used(
    make_corpus, make_voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a decoder's crash on a hostile file would."""
    corpus = make_corpus({f"s/{i}": make_voice(0.4, i) for i in range(6)})
    survey = inspection.survey

    def die_on_three(place: Source, *rest: float):
        if Path(place.path).stem == "3":
            os.kill(os.getpid(), signal.SIGKILL)
        return survey(place, *rest)

    monkeypatch.setattr(inspection, "survey", die_on_three)
    monkeypatch.setattr(inspection, "FEWEST_SHARDS", 2)
    listing = tmp_path / "recordings.sqlite"
    work = inspection.Inspecting(corpus, listing, tmp_path, write_listing(corpus.recordings(), listing), 0.3, LENIENT)
    LocalEngine(2).run(work)
    reasons = {i.recording.id: i.reason for i in work.findings() if i.reason}
    assert reasons == {"s/3": "decoding it killed the process"}


def test_shards_cover_every_recording_once(make_corpus, inspect, tmp_path: Path) -> None:
    for n in (1, 63, 64, 65, 200):
        work = inspect(make_corpus({f"s/{i:03}": "broken" for i in range(n)}), tmp_path / str(n))
        assert sum(map(work.size, range(work.n_shards))) == n
        assert [i.recording.id for i in work.findings()] == [f"s/{i:03}" for i in range(n)]
        assert work.written() == set(range(work.n_shards))
        assert work.name(work.n_shards - 1).endswith(f" {n}")
