"""Search, trial, study, report, tracking: the only room that knows Hydra, OmegaConf and Optuna."""

import sys

from sweep.interrupts import end_at_once

# This process is one of our commands; Python calls it -m until it has found the module.
if sys.argv[0] == "-m" or sys.argv[0].endswith("/stylesweep"):
    end_at_once()
