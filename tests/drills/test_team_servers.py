"""Two users of a team's servers train at once, and what they made arrives; credentials do not: `make test-servers`.

Skipped where the servers are not installed.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tests.drills.team import Clone, Member, Team, lacking
from tests.repository_copy import RepositoryCopy

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(bool(lacking()), reason=f"A team's servers are not on this machine: {lacking()}"),
]

REPORT = Path("outputs/report")


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    """Real servers, which end with the tests."""
    # Not pytest's own folder: that is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="melisma-team-"))
    folder.chmod(0o755)
    team = Team(folder)
    try:
        team.servers("up")
        yield team
    finally:
        team.servers("down")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def alice(team: Team) -> Member:
    return team.member("alice")


@pytest.fixture(scope="module")
def bob(team: Team) -> Member:
    return team.member("bob")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository that both clone, with `debug=smoke` as its default."""
    copy = RepositoryCopy(tmp_path_factory.mktemp("first"))
    bare = tmp_path_factory.mktemp("origin") / "melisma.git"
    copy.run("git", "clone", "-q", "--bare", str(copy.root), str(bare))
    return bare


@pytest.fixture(scope="module")
def alices(origin: Path, alice: Member, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("alice") / "melisma", origin, alice)


@pytest.fixture(scope="module")
def bobs(origin: Path, bob: Member, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("bob") / "melisma", origin, bob)


def use_remote(clone: Clone, team: Team) -> None:
    """Let a clone know the DVC remote, in the file that git ignores."""
    settings = team.settings()
    clone.run("dvc", "remote", "add", "--local", "--default", "team", f"s3://{settings['DVC_BUCKET']}/melisma")
    clone.run("dvc", "remote", "modify", "--local", "team", "endpointurl", settings["MLFLOW_S3_ENDPOINT_URL"])


@pytest.fixture(scope="module")
def trained(team: Team, alices: Clone, bobs: Clone, bob: Member) -> None:
    """Alice runs the whole pipeline while Bob, whose password stands in the URI, trains with another seed."""
    password = bob.variables["MLFLOW_TRACKING_PASSWORD"]
    for name in ("USERNAME", "PASSWORD"):
        bobs.environment.pop(f"MLFLOW_TRACKING_{name}")
    bobs.environment["MLFLOW_TRACKING_URI"] = team.uri.replace("://", f"://bob:{password}@")
    whole = alices.start("dvc", "repro")
    bobs.run("python", "-m", "pipeline.prepare_data")
    bobs.run("python", "-m", "pipeline.train", "seed=2")
    alices.finish(whole)
    alices.run("git", "add", "-A")
    alices.run("git", "commit", "-q", "-m", "A run")
    alices.run("git", "push", "-q", "origin", "HEAD")
    use_remote(alices, team)
    alices.run("dvc", "push")


@pytest.fixture
def client(team: Team, alice: Member, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    for name, value in alice.variables.items():
        monkeypatch.setenv(name, value)
    return MlflowClient(team.uri)


@pytest.mark.usefixtures("trained")
def test_metrics_models_and_audio_of_both_arrive(team: Team, client: MlflowClient, alices: Clone) -> None:
    experiment = client.get_experiment_by_name("melisma").experiment_id
    runs = client.search_runs([experiment])
    trainings = [run for run in runs if run.data.tags["melisma.stage"] == "train"]
    assert sorted(run.data.params["seed"] for run in trainings) == ["1", "2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all("val/loss" in run.data.metrics for run in trainings)
    stages = {run.data.tags["melisma.stage"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    audio = client.list_artifacts(stages["evaluate"].info.run_id, "audio")
    assert audio
    name = Path(audio[0].path).name
    held = team.objects("ARTIFACTS")
    kept = [
        content
        for key, content in held.items()
        if key.endswith(f"{stages['evaluate'].info.run_id}/artifacts/audio/{name}")
    ]
    assert kept == [(alices.root / "outputs" / "evaluate" / "audio" / name).read_bytes()]
    models = client.search_logged_models([experiment])
    assert {model.status for model in models} == {"READY"}
    assert any(model.name.startswith("export") for model in models)


@pytest.mark.usefixtures("trained")
def test_another_clone_gets_the_report_back(
    team: Team, origin: Path, bob: Member, alices: Clone, tmp_path: Path
) -> None:
    other = Clone(tmp_path / "melisma", origin, bob)
    use_remote(other, team)
    # Keys may stand in DVC's local file instead of the environment.
    for option, variable in (("access_key_id", "AWS_ACCESS_KEY_ID"), ("secret_access_key", "AWS_SECRET_ACCESS_KEY")):
        other.run("dvc", "remote", "modify", "--local", "team", option, other.environment.pop(variable))
    assert not (other.root / REPORT).exists()
    other.run("dvc", "pull")
    for page in (alices.root / REPORT).rglob("*.html"):
        if page.name != "circumstances.html":
            assert (other.root / page.relative_to(alices.root)).read_bytes() == page.read_bytes()
    assert list((other.root / REPORT).glob("*.html"))
    assert "up to date" in other.run("dvc", "status")
    assert other.run("git", "status", "--porcelain") == ""


@pytest.mark.usefixtures("trained")
def test_everyone_has_their_rights_and_no_more(team: Team, alice: Member, bob: Member, client: MlflowClient) -> None:
    search, delete = f"{team.uri}/api/2.0/mlflow/experiments/search", f"{team.uri}/api/2.0/mlflow/experiments/delete"
    ask = {"max_results": 1}
    rights = {member.name: (member.name, member.variables["MLFLOW_TRACKING_PASSWORD"]) for member in (alice, bob)}
    assert requests.post(search, json=ask).status_code == 401
    assert requests.post(search, json=ask, auth=("alice", "guessed")).status_code == 401
    assert requests.post(search, json=ask, auth=rights["bob"]).status_code == 200
    elsewhere = {"Host": "evil.example"}
    assert requests.post(search, json=ask, auth=rights["bob"], headers=elsewhere).status_code == 403
    foreign = {"Origin": "http://evil.example"}
    assert requests.post(search, json=ask, auth=rights["bob"], headers=foreign).status_code == 403

    # Who did not make an experiment logs into it, and deletes neither it nor a run of it.
    made = client.create_experiment("of alice")
    runs = f"{team.uri}/api/2.0/mlflow/runs"
    begun = requests.post(f"{runs}/create", json={"experiment_id": made}, auth=rights["bob"])
    run_id = begun.json()["run"]["info"]["run_id"]
    assert requests.post(f"{runs}/delete", json={"run_id": run_id}, auth=rights["bob"]).status_code == 403
    assert requests.post(delete, json={"experiment_id": made}, auth=rights["bob"]).status_code == 403
    assert requests.post(delete, json={"experiment_id": made}, auth=rights["alice"]).status_code == 200

    # MLflow's files are reached through MLflow alone; the DVC remote by those who have a key.
    settings = team.settings()
    key = team.s3(bob.name, bob.variables["AWS_SECRET_ACCESS_KEY"])
    assert key.list_objects_v2(Bucket=settings["DVC_BUCKET"])["KeyCount"] > 0
    with pytest.raises(key.exceptions.ClientError, match="AccessDenied"):
        key.list_objects_v2(Bucket=settings["ARTIFACTS_BUCKET"])
    for bucket in ("DVC_BUCKET", "ARTIFACTS_BUCKET"):
        assert requests.get(f"{settings['MLFLOW_S3_ENDPOINT_URL']}/{settings[bucket]}").status_code == 403


@pytest.mark.usefixtures("trained")
def test_credentials_land_nowhere(team: Team, alices: Clone, bobs: Clone, alice: Member, bob: Member) -> None:
    """Also not where a training crashes, a password is wrong, or nothing listens."""
    password = bob.variables["MLFLOW_TRACKING_PASSWORD"]
    bobs.run("python", "-m", "pipeline.train", "optimizer.lr=1e9", "optimizer=nonsense", status=2)
    bobs.run("python", "-m", "pipeline.train", f"tracking.uri=http://bob:{password}x@127.0.0.1:1", status=2)
    bobs.run("python", "-m", "pipeline.train", "-m", "seed=3,4", "trainer.max_steps=-1", status=None)
    alices.environment["MLFLOW_TRACKING_PASSWORD"] += "-expired"
    refused = alices.run("python", "-m", "pipeline.train", status=2)
    assert "it asks who you are (401)" in refused
    alices.environment["MLFLOW_TRACKING_PASSWORD"] = alice.variables["MLFLOW_TRACKING_PASSWORD"]

    secrets = [secret.encode() for secret in [*alice.secrets, *bob.secrets, *team.secrets()]]
    written: dict[str, bytes] = {"database": team.database().encode()}
    written |= {"alice said": alices.said.encode(), "bob said": bobs.said.encode()}
    written |= {f"s3 {key}": content for key, content in team.objects("ARTIFACTS").items()}
    written |= {f"s3 {key}": content for key, content in team.objects("DVC", "DVC").items()}
    written |= {f"log {path.name}": path.read_bytes() for path in (team.folder / "servers" / "log").iterdir()}
    for clone in (alices, bobs):
        written |= {str(path): path.read_bytes() for path in clone.root.rglob("*") if path.is_file()}
        objects = subprocess.run(
            ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=clone.root, capture_output=True, check=True
        )
        written[f"git of {clone.root}"] = objects.stdout
    assert len(written) > 100
    assert [name for name, content in written.items() if any(secret in content for secret in secrets)] == []


@pytest.mark.usefixtures("trained")
def test_what_was_deleted_leaves_the_servers_and_the_rest_stays(
    team: Team, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in team.administrator().items():
        monkeypatch.setenv(name, value)
    experiment = client.get_experiment_by_name("melisma").experiment_id
    (bobs,) = client.search_runs([experiment], "params.seed = '2'")
    own = [model for model in client.search_logged_models([experiment]) if model.source_run_id == bobs.info.run_id]
    names = [bobs.info.run_id, *(model.model_id for model in own)]
    before = set(team.objects("ARTIFACTS"))
    leave = {key for key in before if any(name in key for name in names)}
    assert leave
    client.delete_run(bobs.info.run_id)
    assert f"Run with ID {bobs.info.run_id} has been permanently deleted" in team.servers("clean")
    assert set(team.objects("ARTIFACTS")) == before - leave
    with pytest.raises(MlflowException, match=f"{bobs.info.run_id} not found"):
        client.get_run(bobs.info.run_id)
    assert not {model.model_id for model in own} & {
        model.model_id for model in client.search_logged_models([experiment])
    }
