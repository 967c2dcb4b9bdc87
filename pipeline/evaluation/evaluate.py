"""The stage `evaluate`: an export to its loss on held-out speech, and the speech it makes up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_modules.callbacks.expert_balance import balance_metrics
from pipeline.audio.codecs.storage import load_codec
from pipeline.checkpoints.loading import load_decoder
from pipeline.evaluation.configuration import read_evaluation
from pipeline.evaluation.listening import comparison_rows, control_speech, measure_bodies, random_speech, write_clips
from pipeline.evaluation.metrics import HEADLINE, audio_metrics, loss_metrics, write_tables
from pipeline.evaluation.scoring import score_documents
from pipeline.evaluation.speech import speak
from pipeline.plumbing.files import sweep, write_metrics
from pipeline.plumbing.stage_runs import child_run
from pipeline.preparation.reference import load_reference
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.shards import TokenDataset
from pipeline.tokens.vocabulary import Vocabulary


def evaluate(values: Mapping[str, Any], outputs: Path) -> None:
    """Write `evaluate` of the outputs from their `export` and the held-out data.

    Args:
        values: the composed configuration.
        outputs: where the stages write.
    """
    prepared, seed = Path(values["paths"]["prepared"]), values["seed"]
    settings = read_evaluation(values["evaluate"])
    sweep(outputs)
    decoder, codec = load_decoder(outputs / "export"), load_codec(outputs / "export" / "codec")
    vocabulary = Vocabulary(codec.n_codebooks, codec.codebook_size)
    train, validation, test = (open_split(prepared / split, vocabulary) for split in ("train", "validation", "test"))
    baselines = NgramBaselines.fit(train, validation)
    score, baseline = score_documents(decoder, test, vocabulary.n_codebooks), baselines.evaluate(test)

    reference = load_reference(prepared / "reference", "train_codec").measures
    undecoded = load_reference(prepared / "reference", "train_real").measures
    real = load_reference(prepared / "reference", "validation_real").measures
    speech = speak(decoder, codec, test, prepared / "examples", settings.speech, settings.sampling, seed)
    seconds = settings.speech.seconds - settings.speech.prompt_seconds
    bodies = {
        **speech.bodies,
        **random_speech(baselines, codec, speech.n_frames, seed),
        **control_speech(len(speech.n_frames), seconds, codec.sample_rate, seed),
    }
    measures = {"real": real, **measure_bodies(bodies, codec.sample_rate, reference.statistics)}
    comparison = comparison_rows(measures, reference.statistics, undecoded.statistics)

    n_frames = sum((length - 2) // vocabulary.n_codebooks for length in test.lengths)
    metrics = {
        **loss_metrics(score, baseline, n_frames / codec.frame_rate),
        **balance_metrics(score.expert_load),
        **audio_metrics({row["signal"]: row for row in comparison}, real, settings.flatness_gate),
    }
    folder = outputs / "evaluate"
    write_clips(speech.clips, codec.sample_rate, folder / "audio", folder / "audio.json")
    write_tables(folder, score, baseline, comparison)
    write_metrics(folder, metrics, HEADLINE)
    with child_run(values, outputs, "evaluate") as run:
        run.log_parameters({"evaluate": values["evaluate"]})
        run.log_metrics(metrics)
        run.mirror_to_parent(metrics)
        run.log_artifacts(folder / "audio", "audio")
        for name in ("comparison.csv", "loss_by_codebook.csv", "expert_load.csv"):
            run.log_artifact(folder / name)


def open_split(folder: Path, vocabulary: Vocabulary) -> TokenDataset:
    """Open a split, and make sure that it speaks the export's language.

    Raises:
        ValueError: when the tokens were prepared with another codec.
    """
    dataset = TokenDataset.open(folder)
    if dataset.vocabulary != vocabulary:
        raise ValueError(
            f"{folder} has tokens of {dataset.vocabulary}, the export's codec speaks {vocabulary}; "
            "train and convert again on the prepared data, or prepare it with the export's codec."
        )
    return dataset
