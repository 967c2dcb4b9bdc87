import json

from pipeline.tracking.config import anchored

RECORD = {"kind": "metrics", "time": 1, "values": {"late/loss": 1.5}, "step": 3}


def leave_journal(root, run_id, store, process="elsewhere"):
    lines = [{"store": store, "process": process}, RECORD | {"run_id": run_id}]
    path = root / "outputs" / "tracking_journal.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_a_dead_run_left_is_delivered_by_the_next(start, client, root):
    with start() as first:
        pass
    path = leave_journal(root, first.run_id, f"sqlite:///{root}/mlflow.db")
    with start():
        pass
    assert client.get_run(first.run_id).data.metrics == {"late/loss": 1.5}
    assert not path.exists()


def test_records_for_another_store_are_set_aside(start, root, caplog):
    with start() as first:
        pass
    leave_journal(root, first.run_id, "http://elsewhere:5000")
    with start():
        pass
    kept = list((root / "outputs").iterdir())
    assert len(kept) == 1
    assert "late/loss" in kept[0].read_text()
    assert f"pipeline.tracking.replay {kept[0]}" in caplog.text


def test_two_runs_at_once_keep_apart(start, client):
    with start() as one, start() as other:
        one.log_metrics({"train/loss": 1.0}, 0)
        other.log_metrics({"train/loss": 2.0}, 0)
    assert client.get_run(one.run_id).data.metrics == {"train/loss": 1.0}
    assert client.get_run(other.run_id).data.metrics == {"train/loss": 2.0}


def test_the_journal_of_a_queued_experiment_outlives_its_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    copy = tmp_path / "copy"
    assert anchored(copy / "outputs", copy) == tmp_path / "repository" / "outputs"
    assert anchored(tmp_path / "elsewhere", copy) == tmp_path / "elsewhere"


def test_a_training_is_found_by_its_tags_where_no_id_leads_to_it(start, client, caplog):
    weights = {"identity.checkpoint": "abc"}
    with start(tags=weights) as older:
        pass
    with start(tags=weights) as newer:
        pass
    with start(tags={"identity.checkpoint": "another"}):
        pass
    with start(stage="evaluate", tags=weights, parent_tags=weights) as lost:
        pass
    with start(stage="report", parent_run_id=older.run_id, parent_tags=weights) as known:
        pass
    with start(stage="report", parent_run_id="0" * 32, parent_tags=weights) as elsewhere:
        pass
    parents = [client.get_run(run.run_id).data.tags.get("mlflow.parentRunId") for run in (lost, known, elsewhere)]
    assert parents == [newer.run_id, older.run_id, newer.run_id]
    assert caplog.text == ""
    with start(stage="report", parent_tags={"identity.checkpoint": "unknown"}) as orphan:
        pass
    assert "mlflow.parentRunId" not in client.get_run(orphan.run_id).data.tags
    assert "has no run of this training; this run gets no parent" in caplog.text
