"""Buckets against the vectors measured with kohya's scripts."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.buckets import bucket_table, fit_picture, kohya_bucket

VECTORS = json.loads((Path(__file__).parent / "vectors/kohya_buckets.json").read_text())


def _name(table: dict[str, Any]) -> str:
    return "-".join(str(value) for value in table.values() if not isinstance(value, list))


@pytest.mark.parametrize("table", VECTORS["assignment"], ids=_name)
def test_bucket_resize_and_crop_are_those_of_kohya(table: dict[str, Any]) -> None:
    for row in table["rows"]:
        limits = {"min_side": table["min_bucket_reso"], "max_side": table["max_bucket_reso"]}
        mode = {"side": table["resolution"], "step": table["bucket_reso_steps"], "no_upscale": table["no_upscale"]}
        fit = fit_picture(*row["image"], **mode, **limits)
        assert [list(part) for part in fit] == [row["bucket"], row["resized"], row["crop_xy"]]
        assert kohya_bucket(*row["image"], **mode, **limits) == fit.bucket


@pytest.mark.parametrize("row", VECTORS["predefined_buckets"], ids=_name)
def test_bucket_tables_are_those_of_kohya(row: dict[str, Any]) -> None:
    limits = row["min_bucket_reso"], row["max_bucket_reso"]
    table = bucket_table(row["resolution"], row["bucket_reso_steps"], *limits)
    assert [list(bucket) for bucket in table] == row["buckets"]


def test_crop_loss_is_the_share_cut_away() -> None:
    fit = fit_picture(100, 64, side=64, step=32, min_side=None, max_side=None, no_upscale=True)
    kept = fit.bucket.width * fit.bucket.height
    assert fit.crop_loss == 1 - kept / (fit.resized[0] * fit.resized[1])


def test_upscaling_needs_limits() -> None:
    with pytest.raises(ValueError, match="min_side"):
        fit_picture(64, 64, side=64, step=8, min_side=None, max_side=None, no_upscale=False)
