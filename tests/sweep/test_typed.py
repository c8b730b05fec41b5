"""What messages tell a person to type."""

from pathlib import Path

import pytest

from sweep.typed import folded, python, refuse


def test_the_folders_own_interpreter_is_typed_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert python(f"{tmp_path}/.venv/bin/python3") == ".venv/bin/python3"
    assert python("/usr/bin/python3") == "python"


def test_a_message_fits_the_terminal_and_a_path_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = "/a/folder/" + "x" * 90
    lines = folded(f"error: {'some words ' * 20}\n  see {path}\n", "  ").splitlines()
    assert all(len(line) <= 80 for line in lines if path not in line)
    assert f"    {path}" in lines, "whole, and as deep as the line that it stood in"
    typed = f"    hf download {'a/model ' * 20}--local-dir weights".rstrip()
    assert folded(f"fetch it:\n{typed}") == f"fetch it:\n{typed}", "a command is copied whole"
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, folded("some words " * 20).splitlines())) <= 60


@pytest.mark.parametrize(
    "word", ["a://me:s3cret@host/b?sslmode=x", "a://me@host/b?password=s3cret&c=d", "a://:s3cret@h"]
)
def test_a_password_in_what_is_quoted_is_not_shown(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        refuse(f"`study.storage={word}` cannot be read")
    said = capsys.readouterr().err
    assert "s3cret" not in said and "study.storage=a://" in said
