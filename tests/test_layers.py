"""The floors of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FLOOR_2 = {
    "architecture", "audio", "tokens", "checkpoints", "conversion", "tracking", "reporting", "evaluation", "planning",
    "preparation", "provenance", "statistics", "training", "streaming", "serving", "mlflow_model", "comparison",
    "judges", "sweeping",
}  # fmt: skip
STAGES = {"prepare_data", "train", "convert_checkpoint", "evaluate", "report"}
COMMANDS = STAGES | {"compose", "compliance", "plan", "ui", "stream", "serve", "compare", "sweep_report"}
MODULES = sorted(
    path.relative_to(REPOSITORY)
    for package in ("pipeline", "lightning_modules", "hydra_plugins")
    for path in (REPOSITORY / package).rglob("*.py")
)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, as dotted names."""
    names = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    used = imports(path)
    folder = path.parts[:-1]
    for name in used:
        if within(name, "pipeline"):
            part = name.split(".")[1] if "." in name else ""
            assert part not in COMMANDS, f"nothing imports a stage: {name}"
    if folder[0] == "lightning_modules":
        assert not any(within(name, "pipeline") for name in used)
    if folder[:2] == ("lightning_modules", "model"):
        assert not any(
            within(name, "lightning_modules") and not within(name, "lightning_modules.model") for name in used
        )
        assert not any(within(name, "lightning") or within(name, "pytorch_lightning") for name in used)
    if folder[:2] in {("lightning_modules", "parallel"), ("lightning_modules", "precision")}:
        assert not any(
            within(name, f"lightning_modules.{above}")
            for name in used
            for above in ("language_model", "data_module", "callbacks", "trainer")
        )


def test_the_folder_of_the_pipeline_lists_its_commands_alone() -> None:
    modules = {path.stem for path in (REPOSITORY / "pipeline").glob("*.py")}
    assert modules - {"__init__"} == COMMANDS


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] == "pipeline" and p.parts[1] in FLOOR_2], ids=str)
def test_the_rooms_of_the_pipeline_know_no_hydra(path: Path) -> None:
    assert not any(within(name, package) for name in imports(path) for package in ("hydra", "omegaconf"))


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[:2] == ("pipeline", "plumbing")], ids=str)
def test_plumbing_stands_on_nothing(path: Path) -> None:
    assert not any(within(name, "pipeline") and not within(name, "pipeline.plumbing") for name in imports(path))


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[:2] == ("pipeline", "audio")], ids=str)
def test_audio_knows_no_tokens(path: Path) -> None:
    others = FLOOR_2 - {"audio"}
    assert not any(within(name, f"pipeline.{other}") for name in imports(path) for other in others)


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] == "lightning_modules"], ids=str)
def test_training_needs_only_torch_and_lightning(path: Path) -> None:
    allowed = {"torch", "lightning", "numpy", "lightning_modules", "torchao", "triton", "deep_ep"}
    import sys

    for name in imports(path):
        package = name.split(".")[0]
        assert package in allowed or package in sys.stdlib_module_names, f"{path} imports {name}"


def test_an_operator_is_registered_by_one_file() -> None:
    """torch lets a second operator of a name replace the first, for whoever was to call that."""
    registered = [
        node.args[0].value
        for path in MODULES
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("custom_op", "triton_op"))
        if isinstance(node.args[0], ast.Constant)
    ]
    assert len(registered) > 10
    assert sorted(registered) == sorted(set(registered))


def test_the_readme_s_map_names_every_room() -> None:
    rooms = {path.parts[1] for path in MODULES if len(path.parts) > 2 and path.parts[0] != "hydra_plugins"}
    words = (REPOSITORY / "README.md").read_text(encoding="utf-8").split()
    assert not [room for room in sorted(rooms) if f"{room}/" not in words]
