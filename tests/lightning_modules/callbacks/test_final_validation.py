import pytest

from lightning_modules.callbacks.final_validation import FinalValidation


@pytest.mark.parametrize(
    ("max_steps", "val_every_steps", "steps"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 10, [3]), (1, 1, [1])]
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_validation_at_its_interval_and_once_at_the_end(
    fit_scripted, max_steps: int, val_every_steps: int, steps: list[int], accumulate: int
) -> None:
    events = fit_scripted([FinalValidation()], max_steps, val_every_steps, accumulate)
    assert [step for event, step in events if event == "validated"] == steps
