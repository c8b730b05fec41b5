"""Trains a style LoRA, draws with it and scores it; with -m many of them, to find the best configuration.

    python -m sweep            one configuration: train, sample, score
    python -m sweep -m         a sweep: Optuna searches what `search=` names
    python -m sweep --help     what can be set

Any setting below is an override, as in `python -m sweep captions=none train.lora.rank=8`; `python -m sweep.captions`,
`.plan`, `.score`, `.report` and `.finalists` take the same ones. `.status` and `.dashboard` look at a study.
Wrong input ends in one message and exit code 2, Ctrl-C in one line and exit code 130.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from sweep.errors import Stopped
from sweep.kept_manual import keep, kept, state, tell

if TYPE_CHECKING:
    from sweep.door import Place
    from sweep.schema import Config


def main() -> None:
    """`python -m sweep` and the console script `stylesweep`."""
    now = state()
    if now is not None and (text := kept(now)) is not None:
        tell(text)
        return
    from sweep.door import start  # Hydra only now
    from trainer.settings import Strategy

    def train_and_score(config: Config, place: Place) -> tuple[float, float] | Stopped:
        from sweep.study import LOCK, file_lock, folder_lock

        with ExitStack() as held:
            if place.number is None:
                way_out = "wait for it, or end it; the same command then continues it"
                held.enter_context(folder_lock(place.folder, f"the run in {place.folder}", way_out))
            else:  # a cluster's job outlives the sweep that launched it; run again, the sweep waits for what it finds
                held.enter_context(file_lock(place.folder / LOCK, wait=True))
            from sweep.trial import run_trial  # torch only after the configuration has been accepted

            try:
                return run_trial(config, folder=place.folder, number=place.number, overrides=place.overrides).values
            except Stopped as stopped:  # what a job raises, Hydra counts as failed
                return stopped

    def check(configs: Mapping[str, Config]) -> None:
        from sweep.preflight import check_inputs

        check_inputs(configs, done)

    def contents(configs: Mapping[str, Config]) -> dict[str, str]:
        from sweep.contents import contents

        return contents(configs)

    def lacks(config: Config, key: str, choice: str) -> str:
        if key != "captions" or choice not in [*Strategy]:
            return ""
        from sweep.examples import lacks
        from trainer.examples import DatasetError, read_examples

        path = config.data.path
        try:
            if path not in pictures:
                pictures[path] = read_examples(path)
            return lacks(config, Strategy(choice), pictures[path])
        except DatasetError:
            return ""  # told by the check

    done = set[str]()
    pictures: dict[str, list[Any]] = {}  # asked for by one choice after the other

    start(
        train_and_score,
        check=check,
        contents=contents,
        lacks=lacks,
        keep_manual=None if now is None else partial(keep, now),
    )


if __name__ == "__main__":
    main()
