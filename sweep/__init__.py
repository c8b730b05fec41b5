"""Search, trial, study, report, tracking: the only room that knows Hydra, OmegaConf and Optuna."""

import os
import sys

from sweep.interrupts import end_at_once

# This process is one of our commands; Python calls it -m until it has found the module.
if sys.argv[0] == "-m" or sys.argv[0].endswith("/stylesweep"):
    end_at_once()
    # Before torch loads: a thread that waits for another gives its core away after microseconds. By default it holds
    # it for milliseconds, and where other work runs on the cores a training takes fifty times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
