"""How evenly the experts are used on held-out speech."""

from lightning_modules.balance import balance_metrics
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.subject import Subject


def balance(subject: Subject) -> Findings:
    """The load of every expert over the test split."""
    loads = subject.score.expert_load
    rows = [
        {"layer": layer, "expert": expert, "load": float(value / load.sum())}
        for layer, load in loads.items()
        for expert, value in enumerate(load)
    ]
    return Findings(
        {f"eval/{name}": value for name, value in balance_metrics(loads).items()}, {"expert_load.csv": rows}
    )
