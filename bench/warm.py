"""P2: the trials one after the other in one warm process, without anything that ours keeps from trial to trial.

    python -m bench.warm FOLDER 0.001:200 0.001:600      # RATE:IMAGES; started by `make bench`

Imports, base and judges' networks are loaded once. Latents, text embeddings, base images and the features of
references, pool and training pictures are made anew for every trial, as a loop around a training script does, and no
training goes on where another one ended.
"""

import sys
from pathlib import Path
from shutil import rmtree

from hydra import compose, initialize_config_dir

from bench.trials import SHARED, Point
from sweep import warm
from sweep.door import settings
from sweep.manual import CONF
from sweep.schema import register
from sweep.trial import run_trial


def run(chosen: list[Point], folder: Path) -> None:
    """Runs the trials, each in `folder`/its name."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for point in chosen:
            here = folder / point.name
            words = [*SHARED, *point.overrides, f"study.folder={here / 'study'}"]
            config = settings(compose("config", words))
            run_trial(config, folder=here / "trial", overrides=words)
            warm._JUDGE.thing = None  # what it knows of references, pool and base images
            warm.warm_base(config.base)._texts.clear()  # what it read of the prompts
            rmtree(here / "study")  # the cache of latents, texts and base images


def main() -> None:
    """The command line: where to write, then the trials as RATE:IMAGES."""
    folder, *words = sys.argv[1:]
    run([Point(float(rate), int(images)) for rate, images in (word.split(":") for word in words)], Path(folder))


if __name__ == "__main__":
    main()
