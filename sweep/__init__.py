"""Search, trial, study, report, tracking: the only room that knows Hydra, OmegaConf and Optuna."""
