"""Who may know whom, read from the syntax trees: a room that reaches into another fails here by name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"conf", "sweep", "trainer", "metrics", "sandbox", "hydra_plugins"}
FRAMEWORKS = {"hydra", "omegaconf", "optuna", "wandb"}
FORBIDDEN = {
    "trainer": {"metrics", "sweep", "sandbox", "hydra_plugins", *FRAMEWORKS},
    "metrics": {"trainer", "sweep", "sandbox", "hydra_plugins", *FRAMEWORKS},
    "sweep": {"sandbox"},
    "hydra_plugins": {"sandbox", "trainer", "metrics"},
    "sandbox": {"metrics", "sweep", "hydra_plugins", *FRAMEWORKS},
    "conf": ROOMS | FRAMEWORKS,
}
HEAVY = {"torch", "diffusers", "peft", "transformers", "accelerate", "open_clip", "lpips"}
LIGHT = ["trainer/__init__.py", "trainer/settings.py", "metrics/__init__.py", "metrics/settings.py"]


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def violations(path: str, source: str) -> list[str]:
    """Sentences such as `metrics/style.py imports trainer`."""
    forbidden = FORBIDDEN[path.split("/")[0]]
    return [f"{path} imports {name}" for name in sorted(imported(ast.parse(source)) & forbidden)]


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_no_room_imports_what_it_must_not_know(room: str) -> None:
    found = [
        sentence
        for file in sorted((ROOT / room).rglob("*.py"))
        for sentence in violations(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_a_violation_is_named_by_file_and_room() -> None:
    source = "def gain():\n    from trainer.plan import make_plan\n    return make_plan\n"
    assert violations("metrics/style.py", source) == ["metrics/style.py imports trainer"]


@pytest.mark.parametrize("path", [*LIGHT, "hydra_plugins/stylesweep_sweeper/__init__.py"])
def test_modules_read_at_every_start_import_nothing_heavy(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not imported(ast.Module(body=list(top), type_ignores=[])) & (HEAVY | {"optuna", "wandb"})


def test_only_the_door_turns_a_configuration_into_settings() -> None:
    doors = [
        str(file.relative_to(ROOT))
        for room in sorted(ROOMS)
        for file in (ROOT / room).rglob("*.py")
        if "OmegaConf.to_object(" in file.read_text(encoding="utf-8")
    ]
    assert doors == ["sweep/door.py"]
