"""A real SLURM of one node, ray, and MariaDB. `make test-cluster`; docs/cluster.md says how."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweep.study import load_study
from tests.sweep.conftest import Run

pytestmark = pytest.mark.cluster
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """Controller, node and key service of this module's own, as root in a temporary folder."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'SLURM'}: apt install slurmctld slurmd munge")
    with tempfile.TemporaryDirectory(prefix="slurm") as name, ExitStack() as logs:
        folder = Path(name)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, cores=os.cpu_count()))
        munge = [f"--{kind}={folder}/munge.{kind}" for kind in ("socket", "pid-file", "log-file", "seed-file")]
        commands = [
            ["munged", "--foreground", "--force", f"--key-file={folder}/key", *munge],
            ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
            ["slurmd", "-D", "-f", f"{folder}/slurm.conf"],
        ]
        os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
        daemons = []
        for command in commands:
            log = logs.enter_context((folder / f"{command[0]}.log").open("w"))
            daemons.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
            time.sleep(2)
        try:
            subprocess.run(["srun", "true"], check=True, timeout=120)
            yield
        finally:
            os.environ.pop("SLURM_CONF")
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(timeout=30)


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    """The address of a database of this module's own."""
    pytest.importorskip("pymysql", reason="pip install 'stylesweep[mysql]'")
    missing = [tool for tool in ("mariadb-install-db", "mariadbd", "mariadb") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'MariaDB'}: apt install mariadb-server")
    with tempfile.TemporaryDirectory(prefix="maria") as name:
        shutil.chown(name, "mysql")
        data, end = f"--datadir={name}/data", f"--socket={name}/socket"
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        own = ["--no-defaults", "--user=mysql", data]
        subprocess.run(["mariadb-install-db", *own, "--auth-root-authentication-method=normal"], check=True, **quiet)
        daemon = subprocess.Popen(["mariadbd", *own, end, "--port=23306", "--bind-address=127.0.0.1"], **quiet)
        words = "create database studies; create user me@'127.0.0.1'; grant all on studies.* to me@'127.0.0.1'"
        ask = ["mariadb", "--no-defaults", "-uroot", end, "-e", words]
        while subprocess.run(ask, **quiet).returncode and daemon.poll() is None:
            time.sleep(0.5)
        yield "mysql://me@127.0.0.1:23306/studies"
        daemon.terminate()
        daemon.wait(timeout=60)


def test_processes_share_a_study_in_mariadb_and_take_over_what_a_dead_one_left(
    mariadb: str, toy: Run, tmp_path: Path
) -> None:
    words = [f'study.storage="{mariadb}"', "study.heartbeat_seconds=1", "search.n_trials=6", "behave=kill", "when=2"]
    with ThreadPoolExecutor() as threads:
        ran = list(threads.map(lambda _: toy(*words), range(3)))
    assert sorted(each.code for each in ran) == [-signal.SIGKILL, 0, 0], [each.text for each in ran]
    study = tmp_path / "multirun" / "toy"
    assert [trial.state for trial in load_study(study).trials] == [TrialState.COMPLETE] * 6
    assert [(study / f"{n:04d}" / "runs.txt").read_text().count("\n") for n in range(6)] == [1, 1, 2, 1, 1, 1]


def test_slots_submit_to_slurm_and_a_job_that_exits_ends_its_trial_alone(slurm: None, toy: Run, tmp_path: Path) -> None:
    words = ["hydra/launcher=submitit_slurm", "study.slots=2", "search.n_trials=4", "behave=exit", "when=1"]
    ran = toy(*words)
    assert ran.code == 0, ran.text
    trials = load_study(tmp_path / "multirun" / "toy").trials
    expected = [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.state for trial in trials] == expected
    assert trials[1].user_attrs["reason"] == "the job called sys.exit(3)"
    logs = list((tmp_path / "multirun" / "toy" / ".submitit").glob("*/*_log.out"))
    assert len(logs) == 4, "each trial was a job of its own"


def test_slots_hand_their_trials_to_ray(toy: Run, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="hydra-ray-launcher is not installed")
    ran = toy("hydra/launcher=ray", "search.n_trials=3", "behave=raise", "when=1")
    assert ran.code == 0, ran.text
    states = [trial.state for trial in load_study(tmp_path / "multirun" / "toy").trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
