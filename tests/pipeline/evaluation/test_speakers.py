import numpy as np
import pytest

from pipeline.evaluation.speakers import Speakers
from pipeline.preparation.origins import Origin


def origins(speakers: str) -> list[Origin]:
    return [Origin(f"{number}.wav", speaker.strip()) for number, speaker in enumerate(speakers)]


@pytest.mark.parametrize(
    ("test", "train", "kind"),
    [("abab", "abc", "known"), ("abcde", "fghij", "new"), ("abcdef", "abcde", "new"), ("ab", "cd", "untold"),
     ("    ", "    ", "untold"), ("ab  ", "ab", "known")],
)  # fmt: skip
def test_whether_training_has_heard_the_speakers(test: str, train: str, kind: str) -> None:
    assert Speakers.of(origins(test), origins(train)).kind == kind


def test_known_speakers_keep_their_share_and_new_ones_come_and_go() -> None:
    speakers = list("aabbccddee")
    known = Speakers("known").design(speakers, range(10), [""] * 10).resample(50, seed=0)
    new = Speakers("new").design(speakers, range(10), [""] * 10).resample(50, seed=0)
    np.testing.assert_allclose(known[:, :2].sum(axis=1), 2)
    np.testing.assert_array_equal(new[:, ::2], new[:, 1::2])
    assert new[:, :2].sum(axis=1).std() > 0


def test_units_nobody_speaks_stand_for_themselves_among_new_speakers() -> None:
    design = Speakers("new").design(list("aabbccddee") + ["", ""], range(12), ["prompted"] * 10 + ["free"] * 2)
    assert design.degrees_of_freedom == 6
    weights = design.resample(50, seed=0)
    assert not np.array_equal(weights[:, 10], weights[:, 11])
