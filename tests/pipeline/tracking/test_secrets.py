"""Secrets are planted everywhere, and everything that was written is searched for them."""

import logging
import subprocess
from pathlib import Path

import pytest

from pipeline.plumbing.redaction import RedactingFormatter
from pipeline.tracking import RunRequest, TrackingConfig, start_run, sweep_parent
from pipeline.tracking.journal import Journal
from pipeline.tracking.replay import main as replay
from pipeline.tracking.run import RecordedRun
from pipeline.tracking.store import Store, StoreUnavailableError
from pipeline.tracking.writer import BackgroundWriter

SECRET = "hunter2plus"
# Nothing listens on port 1.
AWAY = f"http://bob:{SECRET}@127.0.0.1:1"


@pytest.fixture
def planted(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose git and DVC remotes hold secrets, in an environment that does."""
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    for command in (["init", "-q"], ["remote", "add", "origin", f"https://bob:{SECRET}@example.org/a.git"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text(f"['remote \"x\"']\n    url = https://bob:{SECRET}@example.org\n")
    return root


def written_with_a_secret(root: Path) -> list[Path]:
    files = [path for path in root.rglob("*") if path.is_file() and not {".git", ".dvc"} & set(path.parts)]
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def test_no_secret_reaches_the_store_the_journal_or_a_message(planted, caplog, capsys, monkeypatch):
    caplog.handler.setFormatter(RedactingFormatter("%(message)s"))
    caplog.set_level(logging.INFO)
    name = f"tracking.uri={AWAY}"
    local = TrackingConfig(experiment="test", system_metrics=False)
    run = start_run(local, planted, planted / "outputs", RunRequest(name, "train", tags={"note": AWAY}))
    run.log_parameters({"tracking": {"uri": AWAY}, "overrides": [name], "password": SECRET})
    run.log_dataset("tokens", "abc", f"https://example.org/?token={SECRET}")
    run.set_tags({"git.remote": f"https://bob:{SECRET}@example.org/a.git"})
    with pytest.raises(ConnectionError), run:
        raise ConnectionError(f"{AWAY} is away")
    assert sweep_parent(local, planted, planted / "sweep", name)

    for uri, environment in ((AWAY, None), (None, AWAY)):
        if environment:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
        with pytest.raises(StoreUnavailableError) as caught:
            start_run(TrackingConfig(uri=uri), planted, planted / "outputs", RunRequest(name, "train"))
        assert SECRET not in str(caught.value)
    for uri in (f"postgresql+nonsense://bob:{SECRET}@127.0.0.1:1/x", f"mysql://bob:{SECRET}@127.0.0.1:1/x"):
        with pytest.raises(StoreUnavailableError) as caught:
            start_run(TrackingConfig(uri=uri), planted, planted / "outputs", RunRequest(name, "train"))
        assert SECRET not in str(caught.value)
    for uri in (f"ftp://bob:{SECRET}@host", f"http://bob:{SECRET}/@host"):
        with pytest.raises(ValueError, match=r"tracking\.uri") as refused:
            TrackingConfig(uri=uri)
        assert SECRET not in str(refused.value)

    monkeypatch.setattr("pipeline.tracking.writer.LAST_ATTEMPTS", 0.2)
    journal = planted / "outputs" / "away.jsonl"
    store = Store(AWAY)
    writer = BackgroundWriter(Journal(journal, store.name), store)
    with RecordedRun({"run_id": "0" * 32}, writer.submit, writer.close) as away:
        away.log_parameters({"uri": AWAY})
    assert journal.exists()
    assert replay([str(journal), "--uri", AWAY]) == 1

    assert not written_with_a_secret(planted)
    assert "is away" in caplog.text
    assert "carries credentials" in caplog.text
    assert SECRET not in caplog.text
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
