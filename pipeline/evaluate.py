"""Stage 4: an export to its loss on held-out speech, and the speech it makes up.

python -m pipeline.evaluate [evaluate.temperature=0.8 …]
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from lightning_modules.callbacks.expert_balance import balance_metrics
from lightning_modules.model.sampling import SamplingConfig
from pipeline.audio.codecs import load_codec
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.checkpoints.loading import load_decoder
from pipeline.configuration.composed import outputs_folder, plain
from pipeline.configuration.settings import read_settings
from pipeline.evaluation.listening import comparison_rows, control_speech, measure_bodies, random_speech, write_clips
from pipeline.evaluation.metrics import audio_metrics, loss_metrics, write_tables
from pipeline.evaluation.scoring import score_documents
from pipeline.evaluation.speech import SpeechConfig, speak
from pipeline.plumbing.files import write_json
from pipeline.plumbing.stage_runs import child_run
from pipeline.preparation.reference import load_reference
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.shards import TokenDataset
from pipeline.tokens.vocabulary import Vocabulary


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write outputs/evaluate from outputs/export and the held-out data."""
    values = plain(config)
    prepared, outputs = Path(config.paths.prepared), outputs_folder(config)
    options = dict(values["evaluate"])
    gate = read_settings(FlatnessGate, options.pop("flatness_gate"), "evaluate.flatness_gate")
    sampling_options = {name: options.pop(name) for name in ("temperature", "top_k", "top_p")}
    sampling = read_settings(SamplingConfig, sampling_options, "evaluate")
    evaluate = read_settings(SpeechConfig, options, "evaluate")

    decoder, codec = load_decoder(outputs / "export"), load_codec(outputs / "export" / "codec")
    vocabulary = Vocabulary(codec.n_codebooks, codec.codebook_size)
    train, validation, test = (open_split(prepared / split, vocabulary) for split in ("train", "validation", "test"))
    baselines = NgramBaselines.fit(train, validation)
    score, baseline = score_documents(decoder, test, vocabulary.n_codebooks), baselines.evaluate(test)

    reference = load_reference(prepared / "reference", "train_codec").measures
    undecoded = load_reference(prepared / "reference", "train_real").measures
    real = load_reference(prepared / "reference", "validation_real").measures
    speech = speak(decoder, codec, test, prepared / "examples", evaluate, sampling, config.seed)
    seconds = evaluate.seconds - evaluate.prompt_seconds
    bodies = {
        **speech.bodies,
        **random_speech(baselines, codec, speech.n_frames, config.seed),
        **control_speech(len(speech.n_frames), seconds, codec.sample_rate, config.seed),
    }
    measures = {"real": real, **measure_bodies(bodies, codec.sample_rate, reference.statistics)}
    comparison = comparison_rows(measures, reference.statistics, undecoded.statistics)

    n_frames = sum((length - 2) // vocabulary.n_codebooks for length in test.lengths)
    metrics = {
        **loss_metrics(score, baseline, n_frames / codec.frame_rate),
        **balance_metrics(score.expert_load),
        **audio_metrics({row["signal"]: row for row in comparison}, real, gate),
    }
    folder = outputs / "evaluate"
    write_clips(speech.clips, codec.sample_rate, folder / "audio", folder / "audio.json")
    write_tables(folder, score, baseline, comparison)
    write_json(folder / "metrics.json", metrics)
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


if __name__ == "__main__":
    main()
