"""The `evaluate` group of the configuration. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.checkpoints.choices import WEIGHTS
from pipeline.configuration.settings import check_known, check_seed, read_settings
from pipeline.judges.registry import JUDGES
from pipeline.plumbing.device import check_device

# Beside the weights that a training checkpoint holds.
EXPORT = "export"


@dataclass(frozen=True)
class SpeechConfig:
    """How much speech is generated.

    Attributes:
        batch_size: utterances generated side by side.
        n_prompted: continuations of held-out utterances.
        n_unprompted: utterances that begin from nothing.
        prompt_seconds: how much of a held-out utterance is given.
        seconds: the length of an utterance at most, its prompt included.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {
        "batch_size": 4096, "n_prompted": 10_000, "n_unprompted": 10_000, "seconds": 600
    }  # fmt: skip

    batch_size: int
    n_prompted: int
    n_unprompted: int
    prompt_seconds: float
    seconds: float

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_prompted", "n_unprompted"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluate.{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 < self.prompt_seconds < self.seconds:
            raise ValueError(
                f"evaluate.prompt_seconds is {self.prompt_seconds}; it must be positive and below evaluate.seconds "
                f"({self.seconds})."
            )


@dataclass(frozen=True)
class PairsConfig:
    """What minimal pairs are made of (see `pair_tasks`).

    Attributes:
        n: pairs of each task at most.
        seconds: of the parts that are exchanged or turned round, and at least of what goes before.
        margin_seconds: after a join, which are not scored.
        voices: of espeak-ng, which speak words and non-words; null: those of the corpus, or else American English.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"n": 10_000, "seconds": 60}

    n: int
    seconds: float
    margin_seconds: float
    voices: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"evaluate.pairs.n is {self.n}; it must be at least 1.")
        if not 0 <= 2 * self.margin_seconds < self.seconds:
            raise ValueError(
                f"evaluate.pairs.margin_seconds is {self.margin_seconds}; it must not be negative, and below half of "
                f"evaluate.pairs.seconds ({self.seconds})."
            )
        if self.voices is not None and not self.voices:
            raise ValueError("evaluate.pairs.voices is empty; name voices of espeak-ng, or set it to null.")


@dataclass(frozen=True)
class LongConfig:
    """Speech that may not end.

    Attributes:
        long_seconds: how long each clip is; 0 leaves them out.
        long_clips: how many.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"long_seconds": 3600, "long_clips": 4096}

    long_seconds: float
    long_clips: int

    def __post_init__(self) -> None:
        if self.long_seconds < 0:
            raise ValueError(f"evaluate.long_seconds is {self.long_seconds}; it must be positive, or 0 for none.")
        if self.long_clips < 1:
            raise ValueError(f"evaluate.long_clips is {self.long_clips}; it must be at least 1 (long_seconds=0: none).")


@dataclass(frozen=True)
class JudgingConfig:
    """Who judges the sounds, and how many.

    Attributes:
        judges: `auto` takes those that are installed, `none` nobody; names have to be there.
        judged_clips: of each kind of sound, at most.
        recogniser: folder of a Whisper model in CTranslate2's layout, in place of the one that a package holds.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"judged_clips": 10_000}

    judges: str | tuple[str, ...]
    judged_clips: int
    recogniser: str | None

    def __post_init__(self) -> None:
        if self.judged_clips < 2:
            raise ValueError(f"evaluate.judged_clips is {self.judged_clips}; it must be at least 2.")
        if self.judges in ("auto", "none"):
            return
        unknown = [name for name in self.named if name not in JUDGES]
        if unknown or not self.named:
            raise ValueError(
                f"evaluate.judges is {self.judges!r}; it takes auto, none, or a list of {', '.join(JUDGES)}."
            )

    @property
    def named(self) -> tuple[str, ...]:
        """The judges that are asked for by name."""
        if self.judges in ("auto", "none"):
            return ()
        return (self.judges,) if isinstance(self.judges, str) else self.judges


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated, and how.

    Attributes:
        seed: of prompts and draws.
        weights: `export`: those that were exported; `trained` or `ema`: the training checkpoint's own, or its running
            mean, which need no export.
        device: that computes.
        speech: how much is generated.
        sampling: how its tokens are drawn.
        flatness_gate: how flat it may be.
        pairs: what minimal pairs are made of.
        long: speech that may not end.
        judging: who judges the sounds.
    """

    seed: int
    weights: str
    device: str
    speech: SpeechConfig
    sampling: SamplingConfig
    flatness_gate: FlatnessGate
    pairs: PairsConfig
    long: LongConfig
    judging: JudgingConfig

    def __post_init__(self) -> None:
        check_known("evaluate.weights", self.weights, (EXPORT, *WEIGHTS))
        check_device("evaluate.device", self.device)


def read_evaluation(evaluate: Mapping[str, Any]) -> EvaluationConfig:
    """The `evaluate` group, read and checked.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    options = dict(evaluate)
    seed, device = check_seed("evaluate.seed", options.pop("seed", None)), options.pop("device", "auto")
    weights = options.pop("weights", EXPORT)
    gate = read_settings(FlatnessGate, options.pop("flatness_gate", {}), "evaluate.flatness_gate")
    pairs = read_settings(PairsConfig, options.pop("pairs", {}), "evaluate.pairs")
    sampling, long, judging = (
        {field.name: options.pop(field.name) for field in fields(group) if field.name in options}
        for group in (SamplingConfig, LongConfig, JudgingConfig)
    )
    return EvaluationConfig(
        seed,
        weights,
        device,
        read_settings(SpeechConfig, options, "evaluate"),
        read_settings(SamplingConfig, sampling, "evaluate"),
        gate,
        pairs,
        read_settings(LongConfig, long, "evaluate"),
        read_settings(JudgingConfig, judging, "evaluate"),
    )
