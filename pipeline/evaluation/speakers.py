"""Whether a model has heard the speakers it is judged on, and what that means for how far figures can be trusted."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pipeline.preparation.origins import Origin
from pipeline.statistics.resampling import FEWEST_CLUSTERS, Design

KNOWN, NEW, UNTOLD = "known", "new", "untold"


@dataclass(frozen=True)
class Speakers:
    """The speakers of the test split.

    Attributes:
        kind: known: the model has learnt from all of them, and another test split would have the same. new: it has
            not, and another one would have others. untold: the data do not say, or there are too few new ones.
    """

    kind: str

    @classmethod
    def of(cls, test: Sequence[Origin], train: Sequence[Origin]) -> "Speakers":
        """What the origins of both splits' documents tell."""
        tested, trained = ({origin.speaker for origin in origins} - {""} for origins in (test, train))
        if tested and tested <= trained:
            return cls(KNOWN)
        return cls(NEW if len(tested) >= FEWEST_CLUSTERS else UNTOLD)

    def design(self, speakers: Sequence[str], units: Sequence[Hashable], groups: Sequence[Hashable]) -> Design:
        """How units came about.

        Args:
            speakers: of each unit; empty where nobody speaks.
            units: what each unit comes of, as its document: those that share one come and go together.
            groups: of which there would be as many in any other sample, as of kinds of clips.
        """
        if self.kind == NEW:
            return Design(len(units), clusters=[speaker or unit for speaker, unit in zip(speakers, units, strict=True)])
        strata = list(zip(groups, speakers, strict=True)) if self.kind == KNOWN else groups
        return Design(len(units), strata=strata, clusters=units)

    def description(self) -> str:
        """What intervals rest on, in words."""
        return {
            KNOWN: "utterances drawn again within each speaker, because the model has learnt from all of them",
            NEW: "speakers drawn again, because the model has not learnt from them",
            UNTOLD: "utterances drawn again; who speaks is not known, or there are too few speakers",
        }[self.kind]
