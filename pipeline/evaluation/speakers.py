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

    def __post_init__(self) -> None:
        if self.kind not in (KNOWN, NEW, UNTOLD):
            raise ValueError(f"speakers are {self.kind!r}; they are {KNOWN}, {NEW} or {UNTOLD}.")

    @classmethod
    def of(cls, test: Sequence[Origin], train: Sequence[Origin]) -> "Speakers":
        """What the origins of both splits' documents tell."""
        tested, trained = ({origin.speaker for origin in origins} - {""} for origins in (test, train))
        if tested and tested <= trained:
            return cls(KNOWN)
        return cls(NEW if len(tested) >= FEWEST_CLUSTERS else UNTOLD)

    def design(
        self, speakers: Sequence[str], units: Sequence[Hashable], groups: Sequence[Hashable] | None = None
    ) -> Design:
        """How units came about.

        Args:
            speakers: of each unit; empty where nobody speaks.
            units: what each unit comes of, as its document: those that share one come and go together.
            groups: of which there would be as many in any other sample, as of kinds of clips; None: all are of one.
        """
        clusters = self.clusters(speakers, units)
        if self.kind == NEW:
            return Design(len(units), clusters=clusters)
        groups = groups or [""] * len(units)
        strata = list(zip(groups, speakers, strict=True)) if self.kind == KNOWN else groups
        return Design(len(units), strata=strata, clusters=clusters)

    def clusters(self, speakers: Sequence[str], units: Sequence[Hashable]) -> Sequence[Hashable]:
        """What comes and goes together: all that a new speaker says, and else what is of one unit."""
        if self.kind == NEW:
            return [speaker or unit for speaker, unit in zip(speakers, units, strict=True)]
        return units

    def together(self, other: "Speakers") -> "Speakers":
        """What holds where two models are compared: the one's speakers are new if the other's are."""
        return min(self, other, key=lambda speakers: (NEW, UNTOLD, KNOWN).index(speakers.kind))

    def description(self) -> str:
        """What intervals rest on, in words."""
        return {
            KNOWN: "utterances drawn again within each speaker, because the model has learnt from all of them",
            NEW: "speakers drawn again, because the model has not learnt from them",
            UNTOLD: "utterances drawn again; who speaks is not known, or there are too few speakers",
        }[self.kind]
