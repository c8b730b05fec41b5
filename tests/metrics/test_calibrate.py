"""`python -m metrics.calibrate`: both noises are found in what a sweep leaves behind."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scenes import other_styles, pictures
from test_command import save

from metrics.calibrate import main, read_outcomes, recipe, training_rulers
from metrics.images import ScoreError
from metrics.settings import ScoreSettings


def outcome(folder: Path, *, seed: int, style: float, captions: str = "trigger", config: dict | None = None) -> Path:
    folder.mkdir(parents=True)
    candidate = {
        "style": style,
        "composition": 0.5,
        "constraints": {"leakage": -0.05},
        "diagnostics": {"leak_rate": 0.0},
    }
    known = {"train": {"seed": seed}, "captions": captions, "study": {"name": str(seed)}, "score": {}} | (config or {})
    (folder / "outcome.json").write_text(json.dumps({"candidates": [candidate], "config": known}))
    return folder


def test_trials_that_differ_in_their_training_seed_alone_are_repeats_of_one_recipe(tmp_path):
    styles = {"trigger": (0.5, 0.6, 0.7), "tags": (0.2, 0.2)}
    for captions, values in styles.items():
        for seed, style in enumerate(values):
            outcome(tmp_path / f"{captions}{seed}", seed=seed, style=style, captions=captions)
    outcome(tmp_path / "suggested twice", seed=0, style=0.5)  # the same training again
    outcome(tmp_path / "alone", seed=0, style=0.9, captions="none")
    found = read_outcomes([tmp_path])
    assert len({recipe(o) for o in found.values()}) == 3
    rulers = training_rulers(list(found.values()))
    assert rulers["style"].df == 3 and rulers["style"].sd == pytest.approx((0.02 / 3) ** 0.5)
    assert rulers["composition"].sd == 0


def test_without_repeats_the_report_says_how_to_get_them(tmp_path, capsys):
    outcome(tmp_path / "one", seed=0, style=0.5, config={"eval": {"prompts": []}})
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "train.seed=choice(1,2,3)" in said and "eval=finalists" in said


def test_the_base_against_itself_says_which_thresholds_lie_within_the_noise(tmp_path, settings: ScoreSettings, capsys):
    data = {"path": "training", "references": "references"}
    save(tmp_path / "training", pictures("hatch", range(900, 908)))
    save(tmp_path / "references", pictures("hatch", range(500, 508)))
    save(tmp_path / "others", other_styles("hatch"))
    save(tmp_path / "trial" / "base", pictures("flat", range(16)))
    prompts = [
        {"text": f"scene {i // 2}", "seed": i, "width": 64, "height": 64, "group": "unrelated"} for i in range(16)
    ]
    config = {
        "train": {"seed": 0},
        "score": {**asdict(settings), "line_quality": 1.0},
        "data": {name: str(tmp_path / place) for name, place in data.items()},
        "eval": {"prompts": prompts, "others": str(tmp_path / "others")},
    }
    folder = outcome(tmp_path / "trial" / "0", seed=0, style=0.5, config=config)
    file = folder / "outcome.json"
    stored = json.loads(file.read_text()) | {"base_images": [f"../base/picture_{i:02d}.png" for i in range(16)]}
    file.write_text(json.dumps(stored))
    out = tmp_path / "report.md"
    assert main([str(file), "--nouns", "heart", "--out", str(out)]) == 0
    report = out.read_text()
    assert report in capsys.readouterr().out
    assert "8 prompts" in report and "| score.line_quality | 1.000 |" in report
    row = next(line for line in report.splitlines() if "score.line_quality" in line)
    assert "within the noise" in row
    assert "clears it" in next(line for line in report.splitlines() if "score.copy_rate" in line)
    style = next(line for line in report.splitlines() if line.startswith("- style"))
    assert abs(float(style.split()[2].strip(","))) < 0.2  # other seeds, same style
    assert np.isfinite(float(style.split()[6]))


def test_what_is_no_outcome_is_refused(tmp_path, capsys):
    (tmp_path / "outcome.json").write_text("{}")
    with pytest.raises(ScoreError, match="is no outcome of a trial"):
        read_outcomes([tmp_path])
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "run python -m sweep first" in " ".join(capsys.readouterr().err.split())
