import numpy as np

from pipeline.reporting.clips import Clip
from pipeline.reporting.sections.listen import pair_rows


def clip(kind: str, pair: str | None = None) -> Clip:
    return Clip(kind, np.zeros(8000, dtype=np.float32), 8000, pair=pair)


def test_clips_of_one_pair_share_a_row_whatever_their_order():
    clips = (
        clip("real", "a"), clip("real", "b"), clip("codec", "b"), clip("codec", "a"), clip("continuation", "b"),
        clip("continuation", "a"), clip("unprompted"),
    )  # fmt: skip
    rows = [[(c.kind, c.pair) for c in row] for row in pair_rows(clips)]
    assert rows == [
        [("real", "b"), ("codec", "b"), ("continuation", "b"), ("unprompted", None)],
        [("real", "a"), ("codec", "a"), ("continuation", "a")],
    ]


def test_no_clip_is_lost_when_pairs_do_not_match():
    clips = (clip("real", "a"), clip("codec", "b"), clip("continuation", "c"), clip("unprompted"), clip("unprompted"))
    rows = pair_rows(clips)
    assert sorted(id(c) for row in rows for c in row) == sorted(map(id, clips))
