"""--help from a copy of the checkout: made once, then read, and made anew when something has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.conftest import ROOT, environment

ROOMS = ("conf", "hydra_plugins", "metrics", "sweep", "trainer")
# The last line of stderr says whether Hydra was needed.
LOOK = (
    "import sys\nsys.argv = ['sweep', *{words}]\nfrom sweep.__main__ import main\n"
    "main()\nsys.stderr.write('made' if 'hydra' in sys.modules else 'read')"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def manual(checkout: Path, *words: str, **changed: str) -> tuple[str, str]:
    """What is printed, and whether it was made or read."""
    kept = {name: value for name, value in environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ = {**kept, "PYTHONPATH": str(checkout), **changed}
    code = LOOK.format(words=list(words))
    ran = subprocess.run([sys.executable, "-c", code], cwd=checkout, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, ran.stderr


def test_the_manual_is_made_once_and_again_when_a_choice_or_a_comment_has_changed(checkout: Path) -> None:
    said, how = manual(checkout, "--help")
    assert how == "made" and "  train.lora.rank=16" in said
    assert manual(checkout, "--help") == (said, "read") == manual(checkout, "-h")

    shutil.copy(checkout / "conf/captions/none.yaml", checkout / "conf/captions/mine.yaml")
    more, how = manual(checkout, "--help")
    assert how == "made" and "mine, none" in more
    assert manual(checkout, "--help") == (more, "read")

    (checkout / "conf/captions/mine.yaml").unlink()
    settings = checkout / "trainer/settings.py"
    settings.write_text(settings.read_text().replace("# inner width of the LoRA", "# the width inside"))
    assert "      the width inside" in manual(checkout, "--help")[0]


def test_an_editor_that_has_a_file_open_is_no_obstacle(checkout: Path) -> None:
    lock = checkout / "conf/captions/.#none.yaml"  # as Emacs makes them: a link to nothing
    lock.symlink_to("somebody@somewhere.1234")
    assert "  train.lora.rank=16" in manual(checkout, "--help")[0]
    lock.unlink()


def test_with_other_words_or_a_narrow_terminal_it_is_made(checkout: Path) -> None:
    manual(checkout, "--help")
    said, how = manual(checkout, "--help", "train.lora.rank=7")
    assert how == "made" and "  train.lora.rank=7" in said
    said, how = manual(checkout, "--help", COLUMNS="50")
    meanings = [line for line in said.splitlines() if line.startswith(" " * 6)]
    assert how == "made" and max(map(len, meanings)) <= 50
    assert "  train.lora.rank=16" in manual(checkout, "--help")[0], "neither was kept"


def test_nothing_is_kept_where_python_keeps_no_bytecode_and_what_is_broken_is_made_anew(checkout: Path) -> None:
    kept = checkout / "sweep/__pycache__/help.txt"
    said = manual(checkout, "--help")[0]
    kept.write_bytes(b"\xff\n")
    assert manual(checkout, "--help", PYTHONDONTWRITEBYTECODE="1") == (said, "made")
    assert kept.read_bytes() == b"\xff\n"
    assert manual(checkout, "--help") == (said, "made")
    assert manual(checkout, "--help", PYTHONDONTWRITEBYTECODE="1") == (said, "read")
