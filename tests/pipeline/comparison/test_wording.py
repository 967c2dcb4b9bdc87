"""What a comparison says where there is little to say it of."""

from pipeline.comparison.measure import Measure
from pipeline.comparison.result import Outcome
from pipeline.comparison.wording import difference, difference_bounds, more
from pipeline.statistics.interval import Interval
from pipeline.statistics.paired import PairedDifference, Verdict

LOSS = Measure("eval/loss", "Test loss", "nats a token", "utterances", lower_is_better=True)


def outcome(interval: Interval, n_more: int | None) -> Outcome:
    return Outcome(LOSS, (7.008, 6.952), PairedDifference(interval, Verdict.CANNOT_TELL, 1, n_more))


def test_too_few_units_have_no_interval_and_it_is_units_that_are_missing() -> None:
    found = outcome(Interval.unknown(), None)
    assert (difference(found), difference_bounds(found), more(found)) == (
        "no interval",
        "no interval",
        "more utterances",
    )


def test_what_no_number_of_units_tells_is_missing_trainings() -> None:
    found = outcome(Interval(-0.056, -0.156, 0.044), None)
    assert (difference(found), more(found)) == ("−0.06, 95 % −0.16 to +0.04", "trainings of more seeds")
    assert more(outcome(Interval(-0.056, -0.156, 0.044), 731)) == "740 more utterances"
