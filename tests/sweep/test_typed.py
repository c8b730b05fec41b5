"""What messages tell a person to type."""

from pathlib import Path

import pytest

from sweep.typed import python


def test_the_folders_own_interpreter_is_typed_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert python(f"{tmp_path}/.venv/bin/python3") == ".venv/bin/python3"
    assert python("/usr/bin/python3") == "python"
