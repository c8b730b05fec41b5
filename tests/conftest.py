"""What all rooms' tests share: one thread, no network, nobody's cached models, a tiny Flux."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Set before torch is imported anywhere: on shared cores one thread is the fastest number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WANDB_MODE", "disabled")

# huggingface_hub reads these when it is imported: a machine that holds FLUX.1-dev must test like one that does not.
_SCRATCH = tempfile.mkdtemp(prefix="stylesweep_tests_")
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
os.environ["HF_HOME"] = f"{_SCRATCH}/huggingface"
os.environ["HF_HUB_CACHE"] = f"{_SCRATCH}/huggingface/hub"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{_SCRATCH}/hypothesis"  # instead of .hypothesis in the checkout

import hypothesis  # noqa: E402 only now
import pytest  # noqa: E402

from tests.tiny_flux import make_tiny_flux  # noqa: E402

# On shared cores an example takes as long as it takes.
hypothesis.settings.register_profile("stylesweep", deadline=None, database=None)
hypothesis.settings.load_profile("stylesweep")


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Flux in the diffusers format: factor-4 VAE, scale 0.125 (512 means 64 px)."""
    return make_tiny_flux(tmp_path_factory.mktemp("tiny_flux"))
