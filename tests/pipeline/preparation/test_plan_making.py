"""The plan that SQLite makes is the one that a few lines of Python make in memory."""

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio.configuration import SplitConfig, UtteranceConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.splitting import SPLITS
from pipeline.audio.survey import Take
from pipeline.audio.utterances import Utterance, lay_out, utterance_name
from pipeline.preparation.configuration import DataConfig
from pipeline.preparation.inspection import Inspection
from pipeline.preparation.plan import Plan
from pipeline.preparation.plan_making import make_plan
from pipeline.preparation.utterance_reader import by_recording


def found(name: str, speaker: str = "ann", seconds: float = 2.0, split: str | None = None, **rest) -> Inspection:
    defaults = {"sha256": hashlib.sha256(name.encode()).hexdigest(), "take": Take(round(8000 * seconds))}
    return Inspection(Recording(name, speaker, split=split), seconds, **defaults | rest)


@pytest.fixture
def planned(data: DataConfig, tmp_path: Path):
    def plan(findings, **changes):
        make_plan(findings, replace(data, **changes), tmp_path / "plan.sqlite", tmp_path / "prepared")
        return Plan.open(tmp_path / "plan.sqlite")

    return plan


def splits_of(plan: Plan) -> dict[str, str]:
    return {i.recording.id: split for i, split in plan.recordings() if split}


def expected_splits(names: set[str], validation: int, test: int, seed: int) -> dict[str, str]:
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    return {
        name: "validation" if place < validation else "test" if place < validation + test else "train"
        for place, name in enumerate(order)
    }


def expected_utterances(findings, splits, config: UtteranceConfig, seed: int) -> list[Utterance]:
    groups = defaultdict(list)
    for i in sorted(findings, key=lambda i: i.recording.id):
        groups[splits[i.recording.id], i.recording.speaker].append((i.recording.id, i.seconds))
    utterances = [
        Utterance(utterance_name(pieces), speaker, split, pieces)
        for (split, speaker), recordings in groups.items()
        for pieces in lay_out(recordings, config, f"{seed}/{split}/{speaker}")
    ]
    return sorted(utterances, key=lambda utterance: hashlib.sha256(f"{seed}/{utterance.id}".encode()).digest())


@pytest.mark.parametrize("by", ["file", "speaker"])
@pytest.mark.parametrize("join_seconds", [None, 4.0])
def test_it_is_the_plan_of_plain_python(planned, by: str, join_seconds: float | None) -> None:
    draw = random.Random(7)
    findings = [found(f"{i % 9}/{i:03} é", f"s{i % 9}", round(draw.uniform(0.2, 65), 3)) for i in range(120)]
    draw.shuffle(findings)
    config = UtteranceConfig(0.3, 20.0, join_seconds, 0.05)
    with planned(findings, split=SplitConfig(by, 0.3, 0.2), utterances=config, seed=5) as plan:
        groups = {i.recording.id if by == "file" else i.recording.speaker for i in findings}
        n_validation, n_test = round(0.3 * len(groups)), round(0.2 * len(groups))
        drawn = expected_splits(groups, n_validation, n_test, seed=5)
        splits = {i.recording.id: drawn[i.recording.id if by == "file" else i.recording.speaker] for i in findings}
        assert splits_of(plan) == splits
        utterances = expected_utterances(findings, splits, config, 5)
        for split in SPLITS:
            own = [utterance for utterance in utterances if utterance.split == split]
            assert list(plan.utterances(split)) == own
            assert list(plan.utterances(split, 2, 5)) == own[2:5]
            assert plan.utterance(split, 1) == own[1]
            assert list(plan.by_recording(split)) == by_recording(own)
            assert (plan.count(split), plan.count_speakers(split)) == (len(own), len({u.speaker for u in own}))
        assert [i for i, _ in plan.recordings()] == findings
        assert all(plan[i.recording.id] == i for i in findings)
        long = defaultdict(list)
        for utterance in utterances:
            if utterance.pieces[0].start is not None:
                long[utterance.pieces[0].recording].append(utterance)
        assert plan.count_long() == len(long) > 10
        for number in range(len(long)):
            pieces = plan.pieces(number)
            assert pieces == by_recording(long.pop(pieces[0].pieces[0].recording))
            assert [plan.place(piece) for piece in pieces] == [(number, place) for place in range(len(pieces))]


def test_the_order_in_which_recordings_are_listed_decides_on_nothing_but_the_manifest(planned) -> None:
    findings = [found(f"{i}", f"s{i % 3}", 0.5) for i in range(50)]
    config = UtteranceConfig(0.3, 20.0, 4.0, 0.06)
    with planned(findings, utterances=config) as plan:
        first = [list(plan.utterances(split)) for split in SPLITS]
    with planned(random.Random(1).sample(findings, 50), utterances=config) as plan:
        assert [list(plan.utterances(split)) for split in SPLITS] == first
    with planned(findings, utterances=config, seed=2) as plan:
        assert [list(plan.utterances(split)) for split in SPLITS] != first


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 30), st.floats(0.01, 0.49), st.floats(0.01, 0.49), st.integers(0, 5))
def test_no_speaker_is_in_two_splits_and_no_split_is_empty(
    data: DataConfig,
    tmp_path_factory: pytest.TempPathFactory,
    n_speakers: int,
    validation: float,
    test: float,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.sqlite"
    findings = [found(f"s{speaker}/{i}", f"s{speaker}") for speaker in range(n_speakers) for i in range(3)]
    make_plan(
        findings, replace(data, split=SplitConfig("speaker", validation, test), seed=seed), path, path.parent / "x"
    )
    with Plan.open(path) as plan:
        splits = splits_of(plan)
    assert splits.keys() == {i.recording.id for i in findings}
    assert set(splits.values()) == set(SPLITS)
    assert len({(name.split("/")[0], split) for name, split in splits.items()}) == n_speakers


def test_too_few_groups(planned) -> None:
    few = [found(f"{i}", f"s{i % 2}") for i in range(100)]
    with pytest.raises(ValueError, match="needs at least 3 speakers.*corpus has 2; set data.split.by=file"):
        planned(few, split=SplitConfig("speaker", 0.1, 0.1))
    with pytest.raises(ValueError, match="needs at least 3 files"):
        planned([], split=SplitConfig("file", 0.1, 0.1))


def test_published_splits_are_taken_and_others_drawn(planned) -> None:
    names = ["test", "train", "train", "validation", "train", "train"]
    published = [found(f"{i}", f"{i}", split=split) for i, split in enumerate(names)]
    with planned(published) as plan:
        assert splits_of(plan) == {f"{i}": split for i, split in enumerate(names)}
    with planned([*published[1:], found("0", "0")], split=SplitConfig("file", 0.1, 0.1)) as plan:
        assert Counter(splits_of(plan).values()) == {"train": 4, "validation": 1, "test": 1}
    held_out = [found(f"v{i}", "v", split="validation") for i in range(5)]
    rest = [found(f"s{s}/{i}", f"s{s}") for s in range(10) for i in range(10)]
    with planned([*held_out, *rest], split=SplitConfig("speaker", 0.5, 0.1)) as plan:
        assert Counter(splits_of(plan).values()) == {"validation": 5, "test": 10, "train": 90}
        assert {splits_of(plan)[i.recording.id] for i in held_out} == {"validation"}
    with pytest.raises(ValueError, match="needs at least 2 speakers.*corpus has 1"):
        planned([*held_out, *rest[:10]], split=SplitConfig("speaker", 0.1, 0.1))
    with pytest.raises(ValueError, match="leaves validation without"):
        planned([i for i in published if i.recording.split != "validation"])
    with pytest.raises(ValueError, match="x: .*'dev'"):
        planned([*published, found("x", split="dev")])


def test_copies_lead_to_the_first_and_rejected_ones_to_nothing(planned) -> None:
    names = {"z/a": "1", "b/b": "2", "a/a": "1", "m/a": "1", "s/1": "0", "s/2": "0", "t/1": "3", "t/2": "4"}
    findings = [found(name, sha256=sha, reason="silent" if sha == "0" else "") for name, sha in names.items()]
    with planned(findings) as plan:
        assert {i.recording.id: i.reason for i, _ in plan.recordings()} == dict.fromkeys(names, "") | {
            "z/a": "duplicate of a/a", "m/a": "duplicate of a/a", "s/1": "silent", "s/2": "silent",
        }  # fmt: skip
        assert splits_of(plan).keys() == {"b/b", "a/a", "t/1", "t/2"}


@pytest.mark.parametrize(("fraction", "fails"), [(0.2, True), (0.3, False), (0.0, True), (1.0, False)])
def test_too_many_unusable_recordings_fail_with_the_first_of_them(
    planned, data: DataConfig, tmp_path: Path, fraction: float, fails: bool
) -> None:
    """Three of ten, a copy among them."""
    findings = [found(f"s/{i}", reason="too short" if i == 1 else "") for i in range(8)]
    findings += [found("s/8", reason="not a readable audio file"), found("s/9", sha256=findings[3].sha256)]
    screening = replace(data.screening, max_rejected_fraction=fraction)
    if not fails:
        with planned(findings, screening=screening) as plan:
            assert (plan.count_rejected(), plan.count_recordings()) == (3, 10)
        assert not (tmp_path / "prepared.refused").exists()
        return
    with pytest.raises(ValueError, match="3 of 10 recordings cannot be used") as caught:
        planned(findings, screening=screening)
    message = str(caught.value)
    assert f"data.screening.max_rejected_fraction ({fraction})" in message
    assert "s/1: too short; s/8: not a readable audio file; s/9: duplicate of s/3. Mend" in message
    assert str(tmp_path / "prepared.refused" / "manifest.csv") in message
    assert not (tmp_path / "plan.sqlite").exists()


def test_only_the_first_rejected_are_named(planned, data: DataConfig) -> None:
    findings = [found(f"s/{i}", reason="broken") for i in range(9)]
    with pytest.raises(ValueError, match="s/4: broken. Mend") as caught:
        planned(findings, screening=replace(data.screening, max_rejected_fraction=0.5))
    assert "s/5" not in str(caught.value)


def test_a_split_without_an_utterance_is_refused_before_anything_is_encoded(planned) -> None:
    findings = [found(f"{i}", seconds=0.1 if split == "test" else 1.0, split=split)
                for i, split in enumerate(["train", "validation", "test"])]  # fmt: skip
    with pytest.raises(ValueError, match="The split `test` gets no utterance of 3 recordings"):
        planned(findings, utterances=UtteranceConfig(0.3, 20.0, None, 0.06))


def test_plans_of_equal_corpora_have_equal_digests_and_of_others_other_ones(planned) -> None:
    findings = [found(f"{i}") for i in range(5)]
    digests = []
    for changed in (findings, list(findings), [*findings[:4], replace(findings[4], seconds=1.5)], findings[::-1]):
        with planned(changed) as plan:
            digests.append(plan.fact("digest"))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
