"""Ctrl-C and `kill`, really sent while a command is still being imported."""

import signal
import subprocess
import sys

import pytest

from tests.sweep.conftest import ROOT, environment


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["sweep", "sweep.captions", "sweep.status"])
def test_a_command_stopped_while_it_is_imported_ends_in_one_line(module: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", module],  # says of every module when it has been imported
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore SIGINT and hand that on; a terminal's do not
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith("| sweep"):
                break
        process.send_signal(number)
        said = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
    assert process.returncode == 130
    assert [line for line in said if line] == ["Stopped. The same command continues where this one stopped."]
