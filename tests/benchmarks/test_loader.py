import json

import pytest

from benchmarks.loader import main


@pytest.mark.parametrize("mixture", [[], ["--mixture"]])
def test_one_line_tells_the_rate(mixture: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--batch-size=2", "--sequence-length=64", "--millions=1", "--longest=2", "--seconds=0.05", *mixture])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["tokens_per_second"] > 0
    assert (told["batch_size"], told["mixture"]) == (2, bool(mixture))
