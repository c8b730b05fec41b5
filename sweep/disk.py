"""What stays on the disk of a study: `study.keep`.

Every checkpoint of the trials on the Pareto front and of the finalists stays whatever is said; of the other trials,
all, the LoRA each stands for, or none. Pictures, sheets, outcomes and logs, all that the report shows, always stay: a
LoRA that was removed can be trained again, bit by bit on the same machine, from the configuration in its outcome.json.

Where the budget is searched, a trial that was ended early leaves its checkpoints until the search is over: one with a
longer budget goes on from there.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweep.rungs import BUDGET
from sweep.settings import Keep
from sweep.study import FINISHED, front

CHECKPOINTS = "training/*/step_*"  # in a trial's folder
STATES = "training/*/step_*/state.safetensors"


class Shelf:
    """Knows who stands on the front, so that each trial costs a look at those alone that it changed."""

    def __init__(self, folder: Path, keep: Keep) -> None:
        self.folder = folder
        self.keep = keep
        self.before: Sequence[FrozenTrial] = ()

    def put(self, study: optuna.Study, trial: FrozenTrial, on_front: Sequence[FrozenTrial]) -> None:
        """Removes what is not to stay of a trial that has ended, and of those that it drove from the front."""
        now = {each.number for each in on_front}
        ended = [trial, *(each for each in self.before if each.number not in now)]
        self._tidy(study, [each for each in ended if not _goes_on(each)], now)
        self.before = on_front

    def tidy(self, study: optuna.Study) -> None:
        """Removes what is not to stay of all trials."""
        trials = study.get_trials(deepcopy=False, states=FINISHED)
        self._tidy(study, trials, {each.number for each in front(trials)})

    def _tidy(self, study: optuna.Study, trials: Sequence[FrozenTrial], on_front: set[int]) -> None:
        if self.keep == Keep.all:
            return
        safe = {*on_front, *study.user_attrs.get("finalists", [])}
        for trial in trials:
            if trial.number not in safe:
                _remove(_spare(self.folder, trial, self.keep))


def _goes_on(trial: FrozenTrial) -> bool:
    """Whether another trial may go on from where this one was ended."""
    return trial.state == TrialState.PRUNED and any(key.startswith(BUDGET) for key in trial.params)


def _spare(folder: Path, trial: FrozenTrial, keep: Keep) -> Iterable[Path]:
    """What need not stay of a trial that is neither on the front nor a finalist."""
    place = folder / f"{trial.number:04d}"
    if trial.state == TrialState.FAIL:  # its checkpoints may tell why
        yield from place.glob(STATES)
        return
    chosen = folder / str(trial.user_attrs.get("lora", "")) if keep == Keep.chosen else folder
    for checkpoint in place.glob(CHECKPOINTS):
        if trial.state == TrialState.PRUNED or checkpoint != chosen.parent:
            yield checkpoint  # whole, as the trainer takes one with a record for finished


def _remove(spare: Iterable[Path]) -> None:
    for path in list(spare):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # another slot may be at it
        else:
            path.unlink(missing_ok=True)
