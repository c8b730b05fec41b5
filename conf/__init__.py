"""Values only, in Hydra groups; a package so that the console script finds it."""
