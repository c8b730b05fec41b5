"""What all rooms' tests share: one thread, no network, a tiny Flux."""

import os
from pathlib import Path

# Set before torch is imported anywhere: on shared cores one thread is the fastest number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

import pytest

from tests.tiny_flux import make_tiny_flux


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Flux in the diffusers format: factor-4 VAE, scale 0.125 (512 means 64 px)."""
    return make_tiny_flux(tmp_path_factory.mktemp("tiny_flux"))
