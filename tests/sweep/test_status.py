"""What a second terminal says of a study."""

import io
from pathlib import Path

from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from rich.console import Console

from sweep.status import print_status
from sweep.study import ASKED, load_study, study_lock
from sweep.summary import label
from tests.sweep.made import CAPTIONS, add_failed, add_scored, new_study


def status(folder: Path) -> str:
    out = io.StringIO()
    print_status(folder, Console(file=out, width=80, highlight=False, markup=False))
    return out.getvalue()


def test_a_study_that_runs_shows_what_runs_and_what_is_best(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    study = new_study(folder, on_disk=True)
    assert "no trial has begun yet" in status(folder)
    add_failed(study, "out of memory")
    assert "none is usable yet." in status(folder) and "0000 failed: out of memory" in status(folder)
    add_scored(study, folder, 0.7)
    trial = study.ask({"captions": CAPTIONS})
    (folder / f"{trial.number:04d}").mkdir()
    log = "[2026-11-23 14:02:56,583][stylesweep][INFO] train 24/600  pictures seen\n"
    (folder / f"{trial.number:04d}" / "trial.log").write_text(log, encoding="utf-8")
    text = status(folder)
    assert "1 usable, 1 failed, 1 interrupted\n" in text
    assert "best so far: 0001 (style 0.7" in text
    assert f"interrupted {trial.number:04d}: " in text and "    train 24/600  pictures seen\n" in text
    assert "no process on this machine runs it" in text
    study.set_user_attr(ASKED, 4)
    with study_lock(folder):
        text = status(folder)
        assert "no process" not in text and f"running {trial.number:04d} since" in text
        assert "1 usable, 1 failed, 1 running; 2 of 4 done" in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(load_study(folder).get_trials()) == 3, "nothing was changed"


def test_a_mix_that_was_only_asked_for_yet_is_written_as_one_that_was_trained() -> None:
    params = {"captions": "edited", "mix.repeats.768": 2, "mix.repeats.256": 0, "mix.repeats.512": 4}
    distributions = {key: CAPTIONS if key == "captions" else IntDistribution(0, 4) for key in params}
    assert label(create_trial(values=[0.5], params=params, distributions=distributions)) == "edited 512x4+768x2"
