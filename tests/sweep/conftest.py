"""Commands run as a person runs them: in a process of their own, from a folder of their own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "sweep" / "toy_app.py"


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything it printed."""
        return self.out + self.err


Run = Callable[..., Ran]


def environment() -> dict[str, str]:
    """The environment of a command: one thread, no account, no terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HYDRA_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}


def command(*arguments: str, cwd: Path, timeout: float = 800) -> Ran:
    """Runs python with these arguments."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server of this module's own."""
    # Its socket's path may be no longer than 107 letters.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pgserver

        made = pgserver.get_server(f"{folder}/data")
        yield made.get_uri().replace(":@", "@")
        made.cleanup()


@pytest.fixture
def toy(tmp_path: Path) -> Run:
    """The toy application in an empty folder; its study is in multirun/toy."""
    return lambda *arguments: command(str(TOY), "-m", *arguments, cwd=tmp_path)


@pytest.fixture
def sweep(tmp_path: Path) -> Run:
    """`python -m sweep …` from the checkout, with studies in an empty folder."""
    return lambda *arguments: command("-m", "sweep", *arguments, f"study.folder={tmp_path}/multirun", cwd=ROOT)
