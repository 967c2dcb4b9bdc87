"""Models that runs log, as the store has them."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pytest
from mlflow.entities import LoggedModel

from pipeline.provenance.exports import export_digest, size_of
from pipeline.tracking.model_entry import CHECKPOINT, EXPORT, ModelEntry
from tests.pipeline.tracking.exports import write_export

DATA = ("espeak test", "abc")


@pytest.fixture
def models(client) -> Callable[[], dict[str, LoggedModel]]:
    def search() -> dict[str, LoggedModel]:
        experiment = client.get_experiment_by_name("test").experiment_id
        return {model.name: model for model in client.search_logged_models([experiment])}

    return search


def files_of(model: LoggedModel) -> set[str]:
    return {path.name for path in Path(urlparse(model.artifact_location).path).iterdir()}


def test_an_export_is_a_model_of_its_training_by_reference(start, client, models, tmp_path):
    export = write_export(tmp_path / "export", "weights")
    with start("lr=1e-3 · 2x64") as training:
        pass
    with start("convert-checkpoint", stage="convert-checkpoint", parent_run_id=training.run_id) as conversion:
        for _ in range(2):
            conversion.log_model(ModelEntry(EXPORT, EXPORT, export_digest(export), export))
    (model,) = models().values()
    assert (model.name, model.status, model.source_run_id) == ("export lr=1e-3", "READY", training.run_id)
    assert (model.tags["melisma.kept"], model.tags["melisma.path"]) == ("reference", str(export))
    assert int(model.tags["melisma.bytes"]) == size_of(export)
    assert [output.model_id for output in client.get_run(training.run_id).outputs.model_outputs] == [model.model_id]
    assert files_of(model) == {"MLmodel", "input_example.json"}
    assert f"models:/{model.model_id}" in model.tags["mlflow.note.content"]


def test_what_somebody_has_written_of_a_model_stays(start, client, models, tmp_path):
    export = write_export(tmp_path / "export", "weights")
    entry = ModelEntry(EXPORT, EXPORT, export_digest(export), export)
    with start() as run:
        run.log_model(entry)
    (model,) = models().values()
    client.set_logged_model_tags(model.model_id, {"mlflow.note.content": "The one with the laugh."})
    with start() as run:
        run.log_model(entry)
    (model,) = models().values()
    assert model.tags["mlflow.note.content"] == "The one with the laugh."


def test_a_copy_has_the_files_and_takes_no_room_on_the_same_disk(start, models, tmp_path):
    export = write_export(tmp_path / "export", "weights")
    with start() as run:
        run.log_model(ModelEntry(EXPORT, EXPORT, export_digest(export), export, keep="copy"))
    (model,) = models().values()
    folder = Path(urlparse(model.artifact_location).path)
    assert files_of(model) >= {"MLmodel", "model.safetensors", "codec"}
    assert (folder / "model.safetensors").samefile(export / "model.safetensors")
    assert not (export / "MLmodel").exists()


def test_checkpoints_are_ranked_by_metrics_tied_to_their_data(start, client, models, tmp_path):
    kept = tmp_path / "checkpoint.ckpt"
    kept.write_text("weights")
    losses = {100: 4.0, 200: 3.0}
    with start("lr=1e-3 · 2x64") as run:
        for step, loss in losses.items():
            path = kept if step == 200 else None
            run.log_model(
                ModelEntry(
                    CHECKPOINT, f"step {step}", f"x {step}", path, step=step, metrics={"val/loss": loss}, dataset=DATA
                )
            )
    found = client.search_logged_models(
        [client.get_run(run.run_id).info.experiment_id],
        datasets=[{"dataset_name": "espeak test", "dataset_digest": "abc"}],
        order_by=[{"field_name": "metrics.val/loss", "ascending": True}],
    )
    assert [model.name for model in found] == ["step 200 lr=1e-3", "step 100 lr=1e-3"]
    assert [model.tags["melisma.kept"] for model in found] == ["elsewhere", "no"]
    assert [model.params["step"] for model in found] == ["200", "100"]


def test_an_evaluation_counts_for_the_run_and_for_the_model(start, client, models, tmp_path):
    export = write_export(tmp_path / "export", "weights")
    digest = export_digest(export)
    with start() as training:
        training.log_model(ModelEntry(EXPORT, EXPORT, digest, export))
    with start("evaluate", stage="evaluate", parent_run_id=training.run_id) as evaluation:
        evaluation.log_evaluation({"eval/loss": 3.5}, digest, DATA)
        evaluation.log_evaluation({"audio/fd": 9.0}, "unknown", DATA)
    assert client.get_run(evaluation.run_id).data.metrics == {"eval/loss": 3.5, "audio/fd": 9.0}
    (metric,) = next(iter(models().values())).metrics
    assert (metric.key, metric.value, metric.dataset_name, metric.dataset_digest) == ("eval/loss", 3.5, *DATA)


def test_a_description_grows_section_by_section(start, client):
    with start("lr=1e-3 · 2x64") as training:
        training.describe("Training", "loss 3")
    with start("evaluate", stage="evaluate", parent_run_id=training.run_id) as evaluation:
        evaluation.describe("Listen", f"[clip]({evaluation.link('audio/real 00.wav')})")
    stored = client.get_run(training.run_id)
    assert stored.data.tags["mlflow.note.content"] == (
        f"### Listen\n[clip](#/experiments/{stored.info.experiment_id}/runs/{evaluation.run_id}/artifacts/"
        "audio/real%2000.wav)\n\n### Training\nloss 3"
    )
