"""What stays on the disk: never less than the front, the finalists and what the report shows."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from sweep.disk import Shelf
from sweep.settings import Keep
from sweep.study import front


def add(
    study: optuna.Study, folder: Path, level: float | None, state: TrialState = TrialState.COMPLETE, images: int = 0
) -> None:
    """A trial of two checkpoints, the first of which it stands for; with `images`, of a search over the budget."""
    number = len(study.trials)
    for step in (1, 2):
        place = folder / f"{number:04d}" / "training" / "ab" / f"step_{step:06d}"
        place.mkdir(parents=True)
        for name in ("lora.safetensors", "record.json", "state.safetensors"):
            (place / name).touch()
    (folder / f"{number:04d}" / "contact_sheet.png").touch()
    lora = {"lora": f"{number:04d}/training/ab/step_000001/lora.safetensors"} if level is not None else {}
    values = [level, level] if level is not None else None
    space = {"train.budget.images_seen": IntDistribution(1, 9)} if images else {}
    params = dict.fromkeys(space, images)
    study.add_trial(create_trial(state=state, values=values, user_attrs=lora, params=params, distributions=dict(space)))


def steps(folder: Path, number: int) -> list[int]:
    return sorted(int(f.parent.name[5:]) for f in folder.glob(f"{number:04d}/training/*/step_*/lora.safetensors"))


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (Keep.all, [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]),
        (Keep.chosen, [[1], [1, 2], [1, 2], [], [1, 2]]),
        (Keep.front, [[], [1, 2], [1, 2], [], [1, 2]]),
    ],
)
def test_front_and_finalists_stay_and_the_rest_as_is_said(keep: Keep, left: list[list[int]], tmp_path: Path) -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    study.set_user_attr("finalists", [1])
    shelf = Shelf(tmp_path, keep)
    for level, state in (
        (0.4, TrialState.COMPLETE),
        (0.3, TrialState.COMPLETE),  # once a finalist
        (0.5, TrialState.COMPLETE),  # drives the first one from the front
        (None, TrialState.PRUNED),
        (None, TrialState.FAIL),
    ):
        add(study, tmp_path, level, state)
        shelf.put(study, study.trials[-1], front(study.trials))
    assert [steps(tmp_path, n) for n in range(5)] == left
    assert len(list(tmp_path.glob("*/contact_sheet.png"))) == 5
    assert len(list((tmp_path / "0004").rglob("state.safetensors"))) == (2 if keep == Keep.all else 0)
    Shelf(tmp_path, keep).tidy(study)
    assert [steps(tmp_path, n) for n in range(5)] == left, "a later look finds nothing more"


def test_a_trial_that_was_ended_early_is_there_to_be_gone_on_with_until_the_search_is_over(tmp_path: Path) -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    shelf = Shelf(tmp_path, Keep.chosen)
    for images in (0, 5):
        add(study, tmp_path, None, TrialState.PRUNED, images)
        shelf.put(study, study.trials[-1], [])
    assert [steps(tmp_path, n) for n in range(2)] == [[], [1, 2]], "kept where the budget is searched"
    shelf.tidy(study)
    assert steps(tmp_path, 1) == []
