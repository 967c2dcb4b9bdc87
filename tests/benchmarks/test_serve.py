from pathlib import Path

import pytest

from benchmarks.serve import Heard, crowd, listen, started, summary
from tests.speaking_export import noise_codec, talkative_decoder, write_speaking_export


def test_clients_are_served_and_timed(tmp_path: Path) -> None:
    export = write_speaking_export(tmp_path / "export", talkative_decoder(), noise_codec())
    with started(str(export), 2, "cpu", threads=1) as address:
        heard, took = crowd(address, n_clients=2, n_requests=2, seconds=0.3)
        with pytest.raises(RuntimeError, match="400: .*speaks for 60 at most"):
            listen(address, 61, 0)
    assert all(0 < each.first <= each.last < took and each.seconds <= 0.31 for each in heard)


def test_the_summary_is_of_all_clients() -> None:
    told = summary([Heard(0.1, 1.0, 2.0), Heard(0.3, 3.0, 2.0), Heard(0.2, 1.0, 4.0)], took=4.0, n_clients=2)
    assert (told["utterances"], told["speech_seconds"], told["speech_seconds_per_second"]) == (3, 8.0, 2.0)
    assert (told["first_audio_seconds"], told["first_audio_seconds_worst"]) == (0.2, 0.3)
    assert (told["real_time_factor"], told["real_time_factor_worst"]) == (0.5, 1.5)
