import pytest

from pipeline.tracking.names import child_title, job_title, numbered, run_title

WHAT = "3x192 · espeak"


@pytest.mark.parametrize(
    ("overrides", "beginning"),
    [
        ([], "default"),
        (["optimizer.lr=1e-3"], "lr=1e-3"),
        (["optimizer.lr=1e-3", "tiny"], "lr=1e-3 tiny"),
        (["optimizer.lr=1e-3", "smoke"], "lr=1e-3 smoke"),
        (["model.num_hidden_layers=6"], "n_h_layers=6"),
        (["optimizer.lr=1e-3", "model.num_hidden_layers=6"], "l=1e-3 nhl=6"),
        (["seed=2", "tiny", "trainer.max_steps=200", "espeak_short"], "seed=2 tiny"),
    ],
)
def test_what_was_overridden_comes_first_with_keys_as_long_as_fit(overrides, beginning):
    title = run_title(overrides, WHAT)
    assert title.split(" · ")[0] == beginning
    assert title.endswith(WHAT)


def test_what_does_not_fit_follows():
    assert run_title(["seed=2", "tiny", "trainer.max_steps=200"], WHAT) == f"seed=2 tiny · max_steps=200 · {WHAT}"
    assert run_title(["data.root=/a/very/long/path"], WHAT) == f"root=/a/very/long/path · {WHAT}"


def test_a_job_shows_everything_that_tells_it_from_the_others():
    swept = ["optimizer.lr=1e-3", "model.num_hidden_layers=6", "model.bias_update_speed=0.1"]
    assert job_title(swept[:2], WHAT) == f"l=1e-3 nhl=6 · {WHAT}"
    assert job_title(swept, WHAT) == f"1e-3 6 0.1 · {WHAT}"


def test_equal_beginnings_get_a_number_within_fifteen_letters():
    names: list[str] = []
    for title in ["default · a", "default · a", "default · b", "root=/data/speech/a · x", "root=/data/speech/b · x"]:
        names.append(numbered(title, names))
    assert names[:3] == ["default · a", "default #2 · a", "default #3 · b"]
    assert names[4] == "root=/data/s #2 · root=/data/speech/b · x"
    assert len({name[:15] for name in names}) == len(names)


def test_another_stage_is_named_after_its_training():
    assert child_title("convert-checkpoint", "lr=1e-3 · 3x192") == "convert lr=1e-3"
