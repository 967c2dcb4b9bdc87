"""All checks of a conversion, and what they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.names import in_prediction_module
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError
from pipeline.conversion import likelihood, logits, sound, weight_statistics
from pipeline.conversion.against_transformers import check_against_transformers
from pipeline.conversion.check import FAIL, PASS, SKIPPED, WARN, Check
from pipeline.conversion.completeness import check_completeness, missing_sentence
from pipeline.conversion.configuration import ConversionSettings
from pipeline.conversion.held_out import CannotRunError, HeldOut, Surroundings, assemble, open_held_out
from pipeline.conversion.options import GIB
from pipeline.conversion.shapes import check_shapes
from pipeline.conversion.survey import TensorFacts, survey
from pipeline.conversion.values import check_differences, check_dtypes, check_finite
from pipeline.conversion.weight_statistics import check_statistics, look
from pipeline.plumbing.device import device_of

RUNNING = (logits.NAME, likelihood.NAME, sound.NAME)


@dataclass(frozen=True)
class Verdict:
    """What all checks come to.

    Attributes:
        status: `PASS`, `WARN` or `FAIL`.
        sentence: what matters most.
        checks: each of them.
    """

    status: str
    sentence: str
    checks: tuple[Check, ...]


def examine(
    source: CheckpointSource, target: Path, layout: str, settings: ConversionSettings, surroundings: Surroundings
) -> Verdict:
    """Judge what was written at `target` from `source`."""
    checks = [check_completeness(source, settings.allow_missing)]
    try:
        written = open_checkpoint(target, layout, OpenOptions(config=source.config))
    except DamagedCheckpointError as error:
        return conclude([*checks, Check("shapes", FAIL, str(error))], source.missing)
    checks.append(check_shapes(source, written, settings.drop))
    if checks[-1].status == FAIL:
        return conclude(checks, source.missing)
    facts = survey(source, written)
    checks += [
        check_dtypes(facts, settings.dtype),
        check_finite(facts),
        check_differences(facts),
        check_statistics(facts, source.missing),
    ]
    if any(fact.n_nonfinite for fact in facts.values()):
        checks += [Check(name, SKIPPED, "weights that are no numbers make none") for name in RUNNING]
    else:
        checks.append(check_against_transformers(source, round(settings.max_run_gib * GIB)))
        checks += run(source, written, facts, has_random_parts(source, checks), settings, surroundings)
    return conclude(checks, source.missing)


def run(
    source: CheckpointSource,
    target: CheckpointSource,
    facts: Mapping[str, TensorFacts],
    random_parts: bool,
    settings: ConversionSettings,
    surroundings: Surroundings,
) -> list[Check]:
    """The checks that run the model on held-out speech; all are skipped, with the reason, where that is impossible.

    Args:
        source: what was converted.
        target: what came of it.
        facts: of every tensor, source and target beside each other, by published name.
        random_parts: whether some of its weights are random, since the source lacked them.
        settings: of the conversion.
        surroundings: held-out speech, and what it is spoken through.
    """
    is_trained, max_bytes = look(facts).is_trained, round(settings.max_run_gib * GIB)
    try:
        held_out = open_held_out(surroundings, source.config.vocab_size, settings.held_out_tokens)
        # One after the other: only one of them is in memory.
        before = logits.predict(assemble(source, max_bytes), held_out.documents)
        decoder = assemble(target, max_bytes)
    except CannotRunError as error:
        return [Check(name, SKIPPED, str(error)) for name in RUNNING]
    # Logits may have to be equal to the bit: they are computed where sums have one order.
    after = logits.predict(decoder, held_out.documents)
    decoder.to(device_of(settings.device))
    return [
        logits.check_logits(before, after, facts),
        likelihood.check_likelihood(decoder, held_out, is_trained, random_parts, surroundings.context),
        listen(decoder, held_out, is_trained, settings, surroundings),
    ]


def listen(
    decoder: Decoder, held_out: HeldOut, is_trained: bool, settings: ConversionSettings, surroundings: Surroundings
) -> Check:
    """Let the target speak, where there is a codec to speak through."""
    try:
        return sound.check_sound(
            decoder,
            surroundings.codec,
            surroundings.prepared / "reference",
            held_out,
            settings,
            is_trained,
            surroundings.seed,
            surroundings.context,
        )
    except CannotRunError as error:
        return Check(sound.NAME, SKIPPED, str(error))


def has_random_parts(source: CheckpointSource, checks: Sequence[Check]) -> bool:
    """Whether weights that predict the next token are random among trained ones, known or by their looks."""
    missing = [name for name in source.missing if not in_prediction_module(name, source.config)]
    looks_random = any(check.name == weight_statistics.NAME and check.status == FAIL for check in checks)
    return bool(missing) or looks_random


def conclude(checks: Sequence[Check], missing: Sequence[str]) -> Verdict:
    """The worst of the checks, and its sentence; what was missing is named first, for it explains the rest."""
    worst = max((check.status for check in checks), key=[SKIPPED, PASS, WARN, FAIL].index)
    decisive = [check for check in checks if check.status == worst]
    if worst in (WARN, FAIL):
        causes = [missing_sentence(missing)] if missing and worst == FAIL else []
        return Verdict(
            worst, "; ".join(causes + [f"{check.name}: {check.sentence}" for check in decisive]), tuple(checks)
        )
    skipped = [check.name for check in checks if check.status == SKIPPED]
    sentence = f"{len(decisive)} check{'' if len(decisive) == 1 else 's'} passed" + (
        f"; not run: {', '.join(skipped)}" if skipped else ""
    )
    return Verdict(PASS, sentence, tuple(checks))
