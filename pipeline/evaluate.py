"""Stage 4: an export to its loss on held-out speech, and the speech it makes up.

python -m pipeline.evaluate [evaluate.temperature=0.8 …]
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig

from lightning_modules.callbacks.expert_balance import balance_metrics
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling import SamplingConfig
from pipeline.audio.codecs import load_codec
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import SpeechMeasures
from pipeline.audio.reading import read_audio
from pipeline.checkpoints.huggingface import load_decoder
from pipeline.configuration import outputs_folder, plain
from pipeline.evaluation.listening import (
    Clip,
    comparison_rows,
    control_speech,
    decode_all,
    measure_bodies,
    random_speech,
    write_clips,
)
from pipeline.evaluation.prompts import choose_prompts
from pipeline.evaluation.scoring import Score, score_documents
from pipeline.evaluation.synthesis import generate_codes
from pipeline.files import read_json, write_csv, write_json
from pipeline.preparation.reference import load_reference
from pipeline.settings import read_settings
from pipeline.stage_runs import child_run
from pipeline.tokens.ngram import BaselineLosses, NgramBaselines
from pipeline.tokens.rate import bits_per_second
from pipeline.tokens.shards import TokenDataset
from pipeline.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateConfig:
    """How much speech is generated."""

    batch_size: int
    n_prompted: int
    n_unprompted: int
    prompt_seconds: float
    seconds: float

    def __post_init__(self) -> None:
        if min(self.batch_size, self.n_prompted, self.n_unprompted) < 1:
            raise ValueError("evaluate.batch_size, n_prompted and n_unprompted must be at least 1.")
        if not 0 < self.prompt_seconds < self.seconds:
            raise ValueError(
                f"evaluate.prompt_seconds is {self.prompt_seconds}; it must be positive and below evaluate.seconds "
                f"({self.seconds})."
            )


@dataclass(frozen=True)
class Generated:
    """Clips to listen to, bodies of speech to measure (continuations without their prompts), frames of each utterance."""

    clips: list[Clip]
    bodies: dict[str, list[np.ndarray]]
    n_frames: list[int]


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write outputs/evaluate from outputs/export and the held-out data."""
    values = plain(config)
    prepared, outputs = Path(config.paths.prepared), outputs_folder(config)
    options = dict(values["evaluate"])
    gate = read_settings(FlatnessGate, options.pop("flatness_gate"), "evaluate.flatness_gate")
    sampling_options = {name: options.pop(name) for name in ("temperature", "top_k", "top_p")}
    sampling = read_settings(SamplingConfig, sampling_options, "evaluate")
    evaluate = read_settings(EvaluateConfig, options, "evaluate")

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


def speak(
    decoder: Decoder,
    codec: Codec,
    test: TokenDataset,
    examples: Path,
    config: EvaluateConfig,
    sampling: SamplingConfig,
    seed: int,
) -> Generated:
    """Continue held-out utterances, and speak from nothing."""
    frames, prompt_frames = (round(s * codec.frame_rate) for s in (config.seconds, config.prompt_seconds))
    recorded = {row["document"]: row for row in read_json(examples / "examples.json")}
    prompts = choose_prompts(test, list(recorded), config.n_prompted, prompt_frames, seed)
    vocabulary = test.vocabulary
    starts = [prompt.codes[:prompt_frames] for prompt in prompts]
    continued = generate_codes(decoder, vocabulary, starts, frames, sampling, seed, config.batch_size)
    nothing = [prompts[0].codes[:0]] * config.n_unprompted
    unprompted = generate_codes(decoder, vocabulary, nothing, frames, sampling, seed + 1, config.batch_size)
    through_codec = decode_all(codec, [prompt.codes for prompt in prompts], "decoding real")
    continuations = decode_all(codec, continued, "decoding continuations")
    spoken = decode_all(codec, unprompted, "decoding unprompted")
    given = round(config.prompt_seconds * codec.sample_rate)
    clips = []
    for number, prompt in enumerate(prompts):
        source = f"test document {prompt.document}"
        if prompt.document in recorded and number < len(recorded):
            audio, _ = read_audio(examples / recorded[prompt.document]["file"])
            clips.append(Clip("real", number, audio, recorded[prompt.document]["utterance"]))
        clips.append(Clip("codec", number, through_codec[number], source))
        clips.append(Clip("continuation", number, continuations[number], source, config.prompt_seconds))
    clips += [Clip("unprompted", number, audio) for number, audio in enumerate(spoken)]
    new_speech = [audio[given:] for audio in continuations]
    return Generated(
        clips,
        {
            "codec": through_codec,
            "generated": [*new_speech, *spoken],
            "continuation": new_speech,
            "unprompted": spoken,
        },
        [max(len(codes) - prompt_frames, 0) for codes in continued] + [len(codes) for codes in unprompted],
    )


def loss_metrics(score: Score, baseline: BaselineLosses, seconds: float) -> dict[str, float]:
    """The test loss, overall and by codebook, beside what counting can predict."""
    return {
        "eval/loss": score.loss,
        "eval/perplexity": math.exp(score.loss),
        "eval/loss_uniform": baseline.uniform,
        "eval/loss_unigram": baseline.unigram,
        "eval/loss_bigram": baseline.bigram,
        "eval/bits_per_second": bits_per_second(score.loss, score.n_tokens, seconds),
        **{f"eval/loss/codebook_{q}": loss for q, loss in enumerate(score.by_codebook)},
    }


def audio_metrics(rows: Mapping[str, Mapping[str, Any]], real: SpeechMeasures, gate: FlatnessGate) -> dict[str, float]:
    """The measures of generated speech, each beside real speech's, and the gate's verdict."""
    generated = rows["generated"]
    verdict = gate.judge(generated["flatness"], real.flatness)
    log.info("Flatness gate %s: %s.", "passed" if verdict.passed else "failed", verdict.reason)
    return {
        "audio/flatness": generated["flatness"],
        "audio/flatness_db": generated["flatness_db"],
        "audio/flatness_reference": real.flatness,
        "audio/flatness_gate": int(verdict.passed),
        "audio/fd": generated["fd"],
        "audio/fd_reference": rows["codec"]["fd"],
        "audio/fd_unigram_random": rows["unigram_random"]["fd"],
        "audio/fd_undecoded": generated["fd_undecoded"],
        "audio/fd_undecoded_reference": rows["codec"]["fd_undecoded"],
        "audio/mel_flux_db": generated["mel_flux_db"],
        "audio/mel_flux_db_reference": real.mel_flux_db,
        "audio/modulation_depth": generated["modulation_depth"],
        "audio/modulation_depth_reference": real.modulation_depth,
    }


def write_tables(folder: Path, score: Score, baseline: BaselineLosses, comparison: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables that plots and the report are drawn from."""
    write_csv(folder / "comparison.csv", comparison)
    write_csv(
        folder / "loss_by_codebook.csv",
        [
            {"codebook": q, "model": loss, "uniform": b.uniform, "unigram": b.unigram, "bigram": b.bigram}
            for q, (loss, b) in enumerate(zip(score.by_codebook, baseline.by_codebook, strict=True))
        ],
    )
    write_csv(
        folder / "expert_load.csv",
        [
            {"layer": layer, "expert": expert, "load": float(value / load.sum())}
            for layer, load in score.expert_load.items()
            for expert, value in enumerate(load)
        ],
    )


if __name__ == "__main__":
    main()
