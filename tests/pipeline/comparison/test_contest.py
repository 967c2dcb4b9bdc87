"""Verdicts: on equals, on better and worse models, and on what cannot be compared."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.contest import compare_evaluations
from pipeline.comparison.evaluated import Evaluated, read_evaluated
from pipeline.comparison.finding.found import Found
from pipeline.comparison.result import Comparison
from pipeline.statistics.paired import Verdict
from tests.evaluations import N_CLIPS, SETTINGS, Model, write_evaluation_of

DECISIVE = ("eval/loss", "audio/fd")
THESE_WEIGHTS = ComparisonConfig(DECISIVE, None)


def evaluated(folder: Path, model: Model, **options: object) -> Evaluated:
    return read_evaluated(Found(folder.name, folder.name), write_evaluation_of(model, folder, **options))


def compared(tmp_path: Path, *models: Model, config: ComparisonConfig = THESE_WEIGHTS) -> Comparison:
    return held_against([evaluated(tmp_path / f"model {i}", model) for i, model in enumerate(models)], config)


def held_against(models: list[Evaluated], config: ComparisonConfig = THESE_WEIGHTS) -> Comparison:
    return compare_evaluations(models, config, n_resamples=100)


def test_equals_are_not_told_apart(tmp_path: Path) -> None:
    told = 0
    for seed in range(20):
        (contest,) = compared(tmp_path, Model(seed=2 * seed), Model(seed=2 * seed + 1)).contests
        told += any(verdict is not Verdict.CANNOT_TELL for verdict in contest.verdicts.values())
    assert told <= 2


def test_a_better_model_is_better_and_its_counterpart_worse(tmp_path: Path) -> None:
    weak, strong = Model(loss=3.2, shift=1.5, accuracy=0.5), Model(loss=3.0, shift=0.5, accuracy=1.0, seed=1)
    forth, back = (compared(tmp_path, *models).contests[0] for models in ((weak, strong), (strong, weak)))
    assert (forth.verdict, back.verdict) == ("better", "worse")
    assert set(forth.verdicts) >= {"eval/loss", "audio/fd", "audio/flatness_db", "eval/pairs/reversed"}
    for name in (*DECISIVE, "eval/pairs/reversed"):
        assert (forth.verdicts[name], back.verdicts[name]) == ("better", "worse")
    for outcome, opposite in zip(forth.outcomes, back.outcomes, strict=True):
        assert outcome.values == opposite.values[::-1]
        assert outcome.difference.difference.value == pytest.approx(-opposite.difference.difference.value)


def test_better_by_one_decisive_measure_and_worse_by_another_is_no_verdict(tmp_path: Path) -> None:
    (contest,) = compared(tmp_path, Model(loss=3.2, shift=0.5), Model(loss=3.0, shift=1.5, seed=1)).contests
    assert [contest.verdicts[name] for name in DECISIVE] == ["better", "worse"]
    assert contest.verdict is Verdict.CANNOT_TELL


def test_what_trainings_differ_by_anyway_is_no_difference(tmp_path: Path) -> None:
    models = Model(loss=3.05), Model(loss=3.0, seed=1, checkpoint="another")
    (weights,) = compared(tmp_path, *models).contests
    (recipes,) = compared(tmp_path, *models, config=ComparisonConfig(DECISIVE, {"eval/loss": 0.01})).contests
    assert weights.verdicts["eval/loss"] is Verdict.BETTER
    assert recipes.verdicts["eval/loss"] is Verdict.CANNOT_TELL


def test_of_one_training_nothing_is_laid_to_the_seed(tmp_path: Path) -> None:
    config = ComparisonConfig(DECISIVE, {"eval/loss": 0.01})
    (contest,) = compared(tmp_path, Model(loss=3.05), Model(loss=3.0, seed=1), config=config).contests
    assert contest.verdicts["eval/loss"] is Verdict.BETTER
    assert contest.notes == ["Both are of one training: how far trainings of other seeds lie apart does not count."]


def test_a_much_worse_distance_is_told_however_far_trainings_lie_apart(tmp_path: Path) -> None:
    """What trainings differ by goes with the value of each, and not with the larger one for both."""
    models = Model(shift=0.3), Model(shift=3.0, seed=1, checkpoint="another")
    (contest,) = compared(tmp_path, *models, config=ComparisonConfig(DECISIVE, {"audio/fd": 0.24})).contests
    assert contest.verdicts["audio/fd"] is Verdict.WORSE


def test_of_which_measures_the_spread_is_unknown_is_told(tmp_path: Path) -> None:
    models = Model(), Model(seed=1, checkpoint="another")
    (contest,) = compared(tmp_path, *models, config=ComparisonConfig(DECISIVE, {"eval/loss": 0.01})).contests
    (note,) = contest.notes
    assert "Minimal pairs: reversed, Fréchet distance," in note
    assert "Test loss" not in note


def test_whole_speakers_are_drawn_where_training_has_not_heard_them(tmp_path: Path) -> None:
    widths = {}
    for speakers in ("known", "new"):
        folders = [tmp_path / speakers / name for name in "ab"]
        (contest,) = held_against(
            [evaluated(f, Model(seed=i), speakers=speakers) for i, f in enumerate(folders)]
        ).contests
        widths[speakers] = contest.outcomes[0].difference.difference.half_width
    assert widths["new"] > widths["known"]


def test_judges_of_both_are_compared_and_those_of_one_are_told(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", Model(), judges={"dnsmos": 3.0, "whisper": 0.5})
    b = evaluated(tmp_path / "b", Model(seed=1), judges={"dnsmos": 3.5})
    (contest,) = held_against([a, b]).contests
    assert contest.verdicts["judge/dnsmos/overall"] is Verdict.BETTER
    assert contest.outcomes[-1].difference.n_units == 2 * N_CLIPS
    assert "judge/whisper/overall" not in contest.verdicts
    assert "are left out (whisper): evaluate both" in contest.notes[0]


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("utterances.csv", lambda text: text.replace("nats", "bits"), "has nothing for 'nats' in line 2; evaluate"),
        ("utterances.csv", lambda text: text[: text.rindex(",")], "has nothing for 'nats' in line 41"),
        ("clips.csv", lambda text: text.replace("0.", "zero", 1), "in line 2; evaluate the model again"),
        ("clips.safetensors", lambda text: text[:1000], r"clips\.safetensors is damaged .*; evaluate the model again"),
        ("intervals.json", lambda text: "{}", "does not say 'speakers'"),
        ("intervals.json", lambda text: text.replace("known", "loud"), "speakers are 'loud'"),
        ("config.yaml", lambda text: "seed: 1", "does not say 'evaluate'"),
    ],
)
def test_a_damaged_table_is_told_with_a_remedy(
    tmp_path: Path, name: str, damage: Callable[[str], str], sentence: str
) -> None:
    a, folder = evaluated(tmp_path / "a", Model()), write_evaluation_of(Model(seed=1), tmp_path / "b")
    content = (folder / name).read_bytes().decode("latin-1")
    (folder / name).write_bytes(damage(content).encode("latin-1"))
    with pytest.raises(ValueError, match=sentence):
        held_against([a, read_evaluated(Found("b", "b"), folder)])


def test_several_models_are_each_held_against_the_first(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(loss=3.2), Model(seed=1), Model(loss=3.5, seed=2))
    assert [model.label for model in found.models] == ["model 0", "model 1", "model 2"]
    assert [contest.verdicts["eval/loss"] for contest in found.contests] == ["better", "worse"]


def test_models_on_other_recordings_are_refused(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a", Model()), evaluated(tmp_path / "b", Model(), data="other", recordings="other")
    with pytest.raises(ValueError, match=r"^a and b were .* other recordings \(data data, data other\)\. .*data\.seed"):
        held_against([a, b])


def test_in_another_codec_s_tokens_bits_a_second_are_compared_and_nats_a_token_are_not(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a", Model(loss=3.2)), evaluated(tmp_path / "b", Model(), data="other")
    (contest,) = held_against([a, b]).contests
    assert contest.verdicts["eval/bits_per_second"] == "better"
    assert "audio/fd_undecoded" in contest.verdicts
    assert not {"eval/loss", "audio/fd", "eval/pairs/reversed"} & contest.verdicts.keys()
    assert contest.notes[0].startswith("The codecs differ.")


def test_only_what_both_have_is_compared_and_the_rest_is_told(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a", Model()), evaluated(tmp_path / "b", Model(loss=2.5, seed=1, checkpoint="another"))
    lines = (b.folder / "utterances.csv").read_text().splitlines()
    (b.folder / "utterances.csv").write_text("\n".join(lines[:-5]))
    (b.folder / "minimal_pairs.csv").unlink()
    (contest,) = held_against([a, b]).contests
    assert contest.outcomes[0].difference.n_units == 35
    assert "eval/pairs/reversed" not in contest.verdicts
    assert contest.notes == ["5 utterances and clips that only one of them has are left out."]


def test_silence_is_worse_than_any_sound(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a", Model()), evaluated(tmp_path / "b", Model(loss=2.5, seed=1))
    moments = load_file(b.folder / "clips.safetensors")
    save_file(
        {n: 0 * t if n.endswith("count") and "ref" not in n else t for n, t in moments.items()},
        b.folder / "clips.safetensors",
    )
    (contest,) = held_against([a, b]).contests
    assert [contest.verdicts[name] for name in DECISIVE] == ["better", "worse"]
    assert contest.verdict is Verdict.CANNOT_TELL


def test_settings_that_differ_are_listed(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", Model())
    b = evaluated(tmp_path / "b", Model(seed=1, checkpoint="another"), settings=SETTINGS | {"temperature": 0.7})
    (contest,) = held_against([a, b]).contests
    assert contest.changed == {"evaluate.temperature": (0.9, 0.7)}
