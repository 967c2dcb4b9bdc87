import base64
import io
import json
import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import soundfile

from pipeline.plumbing.files import read_json, write_json
from pipeline.reporting.data import ReportData, collect
from pipeline.reporting.figures.style import CSS_VARIABLES
from pipeline.reporting.page import render, render_circumstances, write_report
from pipeline.reporting.report import where_to_look
from pipeline.reporting.sections import SECTIONS
from tests.pipeline.reporting.parsed_page import Page


@pytest.fixture(scope="module")
def report(shared_paths, configuration) -> ReportData:
    return collect(
        shared_paths,
        configuration,
        title="Melisma",
        n_examples=2,
        lineage={"git": {"commit": "cc97c55"}},
        run=read_json(shared_paths.train / "run.json"),
    )


@pytest.fixture(scope="module")
def html(report) -> str:
    return render(report)


@pytest.fixture(scope="module")
def text(html) -> str:
    return seen(html)


def seen(html: str) -> str:
    """The page's text, words separated by single spaces."""
    return " ".join(Page(html).text.split())


def test_the_page_loads_nothing_from_outside(html):
    page = Page(html)
    assert page.addresses
    assert [
        a for a in page.addresses if not a.startswith(("data:image/png;base64,", "data:audio/wav;base64,", "#"))
    ] == ["circumstances.html"]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_ids_are_unique_and_every_reference_finds_one(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)


def test_no_placeholder_colour_is_left(html):
    style = html[html.index("<style>") : html.index("</style>")]
    assert [colour for colour in CSS_VARIABLES if colour in html] == []
    assert [variable for variable in CSS_VARIABLES.values() if f"{variable}:" not in style] == []


def test_the_headline_shows_values_beside_their_references(report, text):
    for expected in (
        "Passed",
        "3.512",
        "4.552",
        "0.233",
        "0.241",
        "209",
        "39.2",
        "1,204",
        "313, codec 96.1",
        "1,013",
    ):
        assert expected in text
    failed = replace(report, clips=(), metrics={**report.metrics, "audio/flatness_gate": 0.0, "audio/flatness": 0.0008})
    text = seen(render(failed))
    assert "Failed" in text
    assert "0.000800" in text
    assert text.index("Failed") < text.index("0.000800") < text.index("below counting pairs of tokens")
    guessing = render(replace(report, clips=(), metrics={**report.metrics, "eval/loss": 7.0}))
    assert "Passed" not in seen(guessing)
    assert "worse than guessing" in seen(guessing)


def test_players_hold_the_audio_that_was_evaluated(html, shared_paths):
    players = re.findall(r'src="data:audio/wav;base64,([^"]+)"', html)
    assert len(players) == 8
    decoded = [soundfile.read(io.BytesIO(base64.b64decode(player)), dtype="float32") for player in players]
    original, sample_rate = soundfile.read(shared_paths.evaluate / "audio" / "real_00.wav", dtype="float32")
    assert decoded[0][1] == sample_rate
    # One step of 16 bits: clips are kept as floats between reading and embedding.
    np.testing.assert_allclose(decoded[0][0], original, atol=1 / 32767)


HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)>&"\''


def test_hostile_text_from_every_file_is_escaped(paths, configuration):
    audio = read_json(paths.evaluate / "audio.json")
    write_json(paths.evaluate / "audio.json", [{**e, "source": f"{e['source']}{HOSTILE}"} for e in audio])
    card = read_json(paths.prepared / "data_card.json")
    card["rejected"] = [{"file": HOSTILE, "reason": HOSTILE}]
    card["splits"][HOSTILE] = {"speakers": 2}
    card["reference"][HOSTILE] = {"flatness": 0.2}
    card[HOSTILE] = HOSTILE
    write_json(paths.prepared / "data_card.json", card)
    converted = {"layout": HOSTILE, "renamed": [[HOSTILE, HOSTILE]], "missing": [HOSTILE], "unexpected": [HOSTILE]}
    converted |= {"verdict": {"status": HOSTILE, "sentence": HOSTILE}, "checks": [{"name": HOSTILE, "status": HOSTILE}]}
    write_json(paths.export / "conversion_report.json", converted)
    write_json(paths.train / "run.json", {"run_id": HOSTILE})
    metrics = read_json(paths.evaluate / "metrics.json") | {f"eval/moe/load_cv/layer_{HOSTILE}": 0.1}
    write_json(paths.evaluate / "metrics.json", metrics)
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    (paths.evaluate / "comparison.csv").write_text(f"signal,fd,flatness\nreal,17,0.2\n{quoted},30,0.1\n")
    (paths.evaluate / "expert_load.csv").write_text(f"layer,expert,load\n{quoted},0,0.4\n{quoted},1,0.6\n")
    (paths.train / "history.csv").write_text(f'step,"train/mtp{quoted[1:]}\n1,2.0\n2,1.5\n')
    hostile = configuration | {"data": {"kind": HOSTILE, HOSTILE: [HOSTILE]}, HOSTILE: {HOSTILE: 1}}
    report = collect(paths, hostile, title=HOSTILE, n_examples=1, lineage={HOSTILE: HOSTILE})
    page, beside = Page(render(report)), Page(render_circumstances(report))
    assert not {"script", "img"} & {*page.tags, *beside.tags}
    assert page.handlers == beside.handlers == []
    assert page.text.count(HOSTILE) > 12
    assert beside.text.count(HOSTILE) > 3


def test_dollar_signs_are_text_not_mathematics(report):
    strange = replace(report, clips=(), expert_load={"$\\frac{1": np.array([1.0, 2.0])})
    assert "$\\frac{1" in Page(render(strange)).text


def test_missing_files_leave_a_sentence_in_place_of_their_section():
    text = Page(render(ReportData(metrics={"eval/loss": 3.5}))).text
    for expected in (
        "The spectral flatness was not measured.",
        "No audio was found",
        "No training history was found",
        "No expert load was found",
        "No comparison of signals was found",
        "No loss by codebook was found",
        "No data card was found",
        "No conversion report was found",
        "The report was given no configuration",
    ):
        assert expected in text
    beside = Page(render_circumstances(ReportData(metrics={}))).text
    assert "No tracked run was found" in beside
    assert "No throughput was found" in beside


def test_a_page_without_any_metric_still_renders():
    assert "The evaluation wrote no numbers" in render(ReportData(metrics={}))


def test_every_section_is_on_the_page_and_linked(html):
    anchors = re.findall(r'<section id="([^"]+)">', html)
    assert len(anchors) == len(SECTIONS)
    assert re.findall(r'<a href="#([^"]+)">', html) == anchors


def test_training_shows_what_was_logged_against_the_baselines(text):
    for expected in (
        "uniform 5.54",
        "unigram 4.98",
        "bigram 4.55",
        "Gradient norm",
        "Multi-token prediction",
        "Routing bias",
    ):
        assert expected in text


def test_data_conversion_and_lineage_are_summarised(text):
    for expected in (
        "3 of 1,305 recordings could not be used",
        "en-us/sentence_0031.wav",
        "2,873,472",
        "model.layers.0.mlp.w1.weight → layers.0.feed_forward.gate_proj.weight",
        "optimizer",
        "betas [0.9, 0.95]",
    ):
        assert expected in text


def test_what_an_equal_training_would_not_repeat_stands_on_a_page_beside(report, html):
    beside = seen(render_circumstances(report))
    for expected in ("run_id 3f2a9c", "git.commit cc97c55", "Throughput", "Rendered"):
        assert expected in beside
        assert expected not in seen(html)
    elsewhere = replace(
        report,
        run={"run_id": "another"},
        lineage={},
        environment={"cpu": "another"},
        throughput={},
        created=report.created + timedelta(days=1),
    )
    assert render(elsewhere) == html
    assert 'href="circumstances.html"' in html


def test_both_pages_say_of_which_checkpoint_they_are(report, html):
    known = replace(report, checkpoint="0123456789abcdef")
    for page in (render(known), render_circumstances(known)):
        assert "0123456789ab" in seen(page)
    assert "of the checkpoint" not in seen(html)


def test_the_page_of_a_queued_experiment_is_looked_at_after_it_was_applied(tmp_path, monkeypatch):
    repository, copy = tmp_path / "repository", tmp_path / "copy"
    monkeypatch.setattr("pipeline.reporting.report.REPOSITORY", copy)
    page = copy / "outputs" / "report" / "index.html"
    assert where_to_look(page) == f"Open {page.as_uri()} in a browser."
    monkeypatch.setenv("DVC_ROOT", str(repository))
    monkeypatch.setenv("DVC_EXP_NAME", "slow")
    applied = repository / "outputs" / "report" / "index.html"
    assert where_to_look(page) == f"Open {applied.as_uri()} in a browser, after dvc exp apply slow."


def test_a_conversion_shows_its_verdict_its_checks_and_its_rounding(text):
    assert "To be looked at" in text
    for expected in (
        "logits pass equal, bit for bit",
        "sound warn flatness 0.02, little like speech",
        "No codec lies beside the target.",
        "Initialised: not in the source, begun as training begins them",
    ):
        assert expected in text
    # Most rounded first.
    assert text.index("layers.1.self_attn.o_proj.weight 0.0263") < text.index("layers.0.self_attn.o_proj.weight 0.0251")


def test_lenient_about_the_data_card(report):
    strange = {
        "splits": {"train": None},
        "rejected": ["a.wav"],
        "rejected_count": "many",
        "reference": {"flatness": 0.2},
    }
    text = Page(render(replace(report, clips=(), data_card=strange))).text
    assert "a.wav" in text


def test_the_written_page_repeats_byte_for_byte_and_stays_small(report, html, tmp_path):
    path = write_report(report, tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    assert path.read_text(encoding="utf-8") == html
    assert {file.name for file in path.parent.iterdir()} == {"index.html", "circumstances.html", "report.md"}
    seconds_of_audio = sum(clip.seconds for clip in report.clips)
    # 16-bit 8 kHz audio in base64 is 21 kB a second; figures and text must not dwarf it.
    assert path.stat().st_size < 21_400 * seconds_of_audio + 60_000 * len(report.clips) + 200_000


def test_a_large_mixture_of_experts_stays_a_small_figure(report):
    rng = np.random.default_rng(0)
    load = {str(layer): rng.dirichlet(np.ones(256)) for layer in range(58)}
    html = render(replace(report, clips=(), expert_load=load, metrics={}))
    assert "data:image/png" in html
    assert len(html) < 1_000_000


def test_metrics_survive_a_round_trip_through_json(paths):
    metrics = json.loads((paths.evaluate / "metrics.json").read_text()) | {
        "audio/fd": float("nan"),
        "eval/loss": float("inf"),
    }
    write_json(paths.evaluate / "metrics.json", metrics)
    text = seen(render(collect(paths, n_examples=0)))
    assert "∞" in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_a_mixture_is_told_by_shares_and_each_of_its_corpora_has_a_curve(report, html):
    mixed = {**report.configuration, "feed": {"mixture": {"data/prepared": 3, "data/mixed/b": 1}}}
    curve = report.history["val/loss"]
    curves = {**report.history, "val/loss/prepared": curve, "val/loss/b": curve}
    text = seen(render(replace(report, configuration=mixed, history=curves)))
    for told in ("data/prepared 75 %", "data/mixed/b 25 %", "mixture of 2", "Loss of each corpus"):
        assert told in text
        assert told not in seen(html)
    assert "nats per token over training steps: prepared, b" in render(replace(report, history=curves))
