"""Which parts of a report are from another training than the evaluation that it is about."""

from pipeline.provenance.identity import IDENTITY, Identity, identity_path, read_identity
from pipeline.provenance.prepared_data import read_prepared_identity
from pipeline.provenance.training import latest_training
from pipeline.reporting.data import CONVERSION, CURVES, DATA, ReportPaths


def disagreements(paths: ReportPaths) -> dict[str, str]:
    """{part: sentence} of each part that is not, or not certainly, of the training that was evaluated."""
    evaluation, training = read_identity(paths.evaluate / IDENTITY), latest_training(paths.train)
    found = {}
    if (paths.train / "history.csv").exists() and (sentence := _curves(evaluation, training)):
        found[CURVES] = sentence
    export = read_identity(identity_path(paths.export))
    if export is not None and evaluation is not None and export.training != evaluation.training:
        found[CONVERSION] = f"{paths.export} is {_of(export)}, the evaluation {_of(evaluation)}."
    if evaluation is not None and (paths.prepared / IDENTITY).exists():
        data = read_prepared_identity(paths.prepared)
        if data.digest != evaluation.data:
            found[DATA] = f"{paths.prepared} holds other data than those that were evaluated on: prepared anew since."
    return found


def _curves(evaluation: Identity | None, training: Identity | None) -> str:
    if evaluation is None and training is None:
        return (
            "Neither the training nor the evaluation says which training it is from: whether these belong together is "
            "not known."
        )
    if evaluation is not None and training is not None and evaluation.training == training.training:
        return ""
    return (
        f"The curves are {_of(training)}, the evaluation {_of(evaluation)}: they do not belong together. For figures "
        "of this training run python -m pipeline.convert_checkpoint, python -m pipeline.evaluate and "
        "python -m pipeline.report."
    )


def _of(identity: Identity | None) -> str:
    if identity is None or identity.training is None:
        return "of an unknown training"
    return f"of the training with {identity.training}"
