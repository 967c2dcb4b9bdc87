"""Judges hear the sounds that are for them, shared among all ranks; who breaks down has not been there."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from pipeline.evaluation.configuration import JudgingConfig
from pipeline.evaluation.ranks import gather, share
from pipeline.evaluation.specimens import OTHER_SPEAKER, Exhibit
from pipeline.judges.judge import Judge, Judgement
from pipeline.judges.registry import Options, Panel, call_in, call_in_installed
from pipeline.plumbing.rank import rank_of_this_process

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Breakdown:
    """What a judge gave instead of a judgement."""

    reason: str


def call_in_panel(settings: JudgingConfig, device: str) -> Panel:
    """The judges that are asked for; of several ranks, those that all of them have."""
    options = Options(device, settings.recogniser)
    own = call_in_installed(options) if settings.judges == "auto" else call_in(settings.named, options)
    return without(own, {name: reason for skipped in gather(dict(own.skipped)) for name, reason in skipped.items()})


def without(panel: Panel, skipped: Mapping[str, str]) -> Panel:
    """The panel without judges, by name, for these reasons."""
    skipped = {**panel.skipped, **skipped}
    return Panel({name: judge for name, judge in panel.judges.items() if name not in skipped}, skipped)


def hear(panel: Panel, given: Sequence[Exhibit]) -> tuple[Panel, list[tuple[str, Exhibit, Judgement]]]:
    """Let every judge judge every exhibit that is for it.

    Returns:
        The judges who came through all of theirs, and what those said. One that failed half way has said nothing: its
        mean would be of other sounds than the next model's.
    """
    asked = [(name, exhibit) for name, judge in panel.judges.items() for exhibit in given if is_for(judge, exhibit)]
    answers = share(lambda own: list(ask(panel.judges, own)), asked)
    broken: dict[str, str] = {}
    for (name, _), answer in zip(asked, answers, strict=True):
        if isinstance(answer, Breakdown) and name not in broken:
            broken[name] = answer.reason
    if rank_of_this_process() == 0:
        for name, reason in broken.items():
            log.warning("The judge %s is left out: %s", name, reason)
    judged = [
        (name, exhibit, answer)
        for (name, exhibit), answer in zip(asked, answers, strict=True)
        if isinstance(answer, Judgement) and name not in broken
    ]
    return without(panel, broken), judged


def ask(judges: Mapping[str, Judge], asked: Sequence[tuple[str, Exhibit]]) -> Iterator[Judgement | Breakdown]:
    """The answers of the judges named to the exhibits beside their names; who has broken down is not asked again."""
    broken: dict[str, Breakdown] = {}
    for name, exhibit in tqdm(asked, desc="judging", unit="sound", disable=not asked or rank_of_this_process() > 0):
        answer = broken.get(name) or judgement_of(judges[name], exhibit)
        if isinstance(answer, Breakdown):
            broken[name] = answer
        yield answer


def judgement_of(judge: Judge, exhibit: Exhibit) -> Judgement | Breakdown:
    """What a judge says of an exhibit, or why it cannot."""
    try:
        return judge.judge(exhibit.specimen)
    except Exception as error:  # whatever a package of somebody else raises: the other judges go on
        said = " ".join(str(error).split())
        return Breakdown(f"it failed on the sound {exhibit.kind} {exhibit.number} ({type(error).__name__}: {said}).")


def is_for(judge: Judge, exhibit: Exhibit) -> bool:
    """Who compares needs a prompt; another voice is something for those alone."""
    return exhibit.specimen.prompt is not None if judge.compares else exhibit.kind != OTHER_SPEAKER
