"""Wrong input through the real command line: one message with fault and way out, and nothing has begun."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution
from PIL import Image

from sweep.door import Job
from sweep.refusal import message
from sweep.settings import SearchSettings
from sweep.study import folder_lock, load_study, open_study
from tests.sweep.conftest import ROOT, Ran, Run, command

DATA = ROOT / "sandbox" / "data" / "anatomy_engraving"


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 2, ran.text
    assert "Traceback" not in ran.text, ran.text
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) <= 25, ran.err
    said = " ".join(ran.err.split())
    for part in parts:
        assert part in said, ran.err
    long = [line for line in ran.err.splitlines() if len(line) > 80 and "/" not in line]
    assert not long, "a line of a terminal is 80 columns, unless a path is longer"


@pytest.fixture(params=[(), ("-m",)], ids=["one", "sweep"])
def either(request: pytest.FixtureRequest, sweep: Run) -> Run:
    """One configuration, and a sweep: both are checked before anything starts."""
    return lambda *arguments: sweep(*request.param, *arguments)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six good pictures with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in sorted(DATA.glob("*.png"))[:6]:
        for suffix in (".png", ".txt", ".tags"):
            shutil.copy(file.with_suffix(suffix), folder)
    return folder


def truncate(folder: Path) -> str:
    file = sorted(folder.glob("*.png"))[1]
    file.write_bytes(file.read_bytes()[:200])
    return file.name


def no_picture(folder: Path) -> str:
    file = sorted(folder.glob("*.png"))[1]
    file.write_text("this is a text")
    return file.name


def not_utf8(folder: Path) -> str:
    file = sorted(folder.glob("*.txt"))[1]
    file.write_bytes("ein Schädel".encode("latin-1"))
    return file.stem


@pytest.mark.parametrize("spoil", [truncate, no_picture, not_utf8])
def test_a_spoilt_file_is_named(spoil: Callable[[Path], str], pictures: Path, either: Run) -> None:
    name = spoil(pictures)
    refused(either(f"data.path={pictures}"), "data.path", name)


def test_all_spoilt_files_are_named_at_once(pictures: Path, sweep: Run) -> None:
    names = [truncate(pictures), not_utf8(pictures)]
    Image.new("RGB", (64, 64)).save(pictures / "good.png")
    refused(sweep(f"data.path={pictures}", "captions=none"), *names)
    refused(sweep(f"data.path={pictures}"), *names, "good.txt")  # which lacks a caption


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path, either: Run) -> None:
    refused(either(f"data.path={tmp_path}/nowhere"), "data.path", "nowhere")
    refused(either(f"data.masks={tmp_path}/nowhere"), "`data.masks`", "nowhere", "alpha")
    (tmp_path / "empty").mkdir()
    refused(either(f"data.references={tmp_path}/empty"), "data.references", "empty")


def test_from_another_folder_the_way_to_the_sandbox_is_told(tmp_path: Path) -> None:
    ran = command("-m", "sweep", cwd=tmp_path)
    refused(ran, "`base.path`", "`data.path`", f"run the command in {ROOT}")
    assert "no such folder" not in ran.err, "one cause is told once"
    assert not list(tmp_path.iterdir())


def test_ones_own_folder_has_to_be_given(either: Run) -> None:
    refused(either("data=folder"), "data.path", "data.references", "data.path=MY_PICTURES")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("captions=edted", ("captions/edted", "subject_only")),
        ("captions.strategy=edted", ("edted", "subject_only")),
        ("mix=nix", ("mix/nix", "512x5")),
        ("mix.repeats.333=1", ("mix.repeats.333",)),
        ("mix.repeats.512=0", ("mix.repeats",)),
        ("mix.batch_sizes={256:4}", ("mix.batch_sizes.512=1, with a + in front",)),
        ("train.lora.rnak=8", ("rnak",)),
        ("train.lora.rank=0", ("rank", "at least 1", "0")),
        ("train.lora.rank=many", ("rank", "many")),
        ("captions=", ("captions",)),
        ("+train.lora.rnak=8", ("`train.lora.rnak`: no such setting", "train.lora.rank")),
        ("data.path=~/nowhere", (str(Path.home() / "nowhere"),)),
        ("data.path=a=b", ("""'data.path="a=b"'""",)),
        ("search.rules=[a >> b]", ("`search.rules=[a >> b]` cannot be read", '["a >= b"]')),
        ("train.lora.rank", ("`train.lora.rank` is no setting", "KEY=VALUE")),
        ("hydra/sweeper=basic", ("leave out hydra/sweeper=basic",)),
        ("hydra.sweep.dir=elsewhere", ("leave out hydra.sweep.dir=elsewhere", "study.folder=FOLDER")),
    ],
)
def test_an_unknown_or_impossible_setting_is_refused_soon(override: str, parts: tuple[str, ...], either: Run) -> None:
    began = time.perf_counter()
    ran = either(override)
    took = time.perf_counter() - began
    refused(ran, *parts)
    # A second on an idle machine; the bound allows for a busy one.
    assert took < 30, f"a wrong setting took {took:.1f} s to be refused"


def test_an_unknown_choice_of_a_search_is_refused_before_the_first_trial(sweep: Run, tmp_path: Path) -> None:
    refused(sweep("-m", "captions=choice(none,edted)"), "captions/edted")
    refused(sweep("-m", "nothing.like.this=range(0,3)"), "nothing.like.this")
    assert not list(tmp_path.glob("multirun/*/0000"))


def test_overrides_may_stand_on_both_sides_of_a_flag(sweep: Run) -> None:
    refused(sweep("train.lora.rank=0", "-m", "captions=choice(none,edited)", "sample.steps=0"), "rank", "steps")


def test_a_rule_broken_by_one_choice_is_refused_with_the_choice(sweep: Run) -> None:
    refused(sweep("-m", "train.lora.rank=choice(8,0)"), "train.lora.rank=0", "at least 1")


def test_a_search_that_can_reach_no_repeats_at_all_is_refused(sweep: Run) -> None:
    refused(sweep("-m", "mix.repeats.512=range(0,6)", "mix.repeats.768=range(0,2)"), "mix.repeats.512=0", "mix.repeats")


@pytest.mark.parametrize(
    ("words", "good"),
    [
        (["mix.repeats.512=0,5", "mix.repeats.768=1,3"], True),
        (["mix.repeats.512=0,5", "mix.repeats.768=0,3"], False),
        (["mix.repeats.512=choice(0,5)", "mix.repeats.768=range(1,3)"], True),
        (["mix.repeats.512=choice(0,5)", "mix.repeats.768=range(0,3)"], False),
        (
            [
                "mix.repeats.512=choice(0,5)",
                "mix.repeats.768=choice(0,3)",
                "mix.repeats.256=0",
                'search.rules=["mix.repeats.512 > 0 or mix.repeats.768 > 0"]',
            ],
            True,
        ),
    ],
)
def test_a_choice_is_judged_with_what_the_search_gives_the_keys_beside_it(
    words: list[str], good: bool, sweep: Run
) -> None:
    """No repeats at 512 px are wrong only where the search may come to none at 768 px as well."""
    ran = sweep("-m", *words, "base.path=/no")
    refused(ran, "`base.path`")
    assert ("`mix.repeats` must show" not in ran.err) == ("A rule keeps" not in ran.err) == good, ran.err


def test_all_broken_rules_are_named_at_once(either: Run) -> None:
    refused(either("train.lora.rank=0", "sample.steps=0", "score.confidence=2"), "rank", "steps", "confidence")


def test_a_base_without_weights_is_refused_with_the_way_out(tmp_path: Path, either: Run) -> None:
    refused(either(f"base.path={tmp_path}/nowhere"), "base.path", "nowhere", "FluxPipeline")
    refused(either("base.path=black-forest-labs/FLUX.1-dev"), "FLUX.1-dev", "licence", "hf download")


def test_judges_without_weights_are_refused_with_a_command_that_can_be_copied(either: Run) -> None:
    ran = either("score=flux")
    refused(ran, "`score.patch_encoder`, `score.style_encoders.timm`: no such file")
    fetched = [line for line in ran.err.splitlines() if line.startswith("    ")]
    assert [line.split()[0] for line in fetched] == ["hf", "hf", "curl"]
    assert fetched[0].endswith("--include 'open_clip*' --local-dir weights/clip_l"), "whole, however long"


def test_sizes_the_base_cannot_train_or_draw_are_refused(pictures: Path, sweep: Run) -> None:
    Image.new("RGB", (400, 4)).save(pictures / "thin.png")
    (pictures / "thin.txt").write_text("a line")
    prompts = "eval.prompts=[{text: a girl, seed: 1, width: 500, height: 512, group: unrelated}]"
    refused(sweep("-m", f"data.path={pictures}", prompts), "thin.png", "500x512", "multiples of 64")


def test_own_pictures_are_not_judged_by_the_sandboxs(pictures: Path, sweep: Run) -> None:
    refused(sweep(f"data.path={pictures}"), "data.references", "still the sandbox's", "held-out pictures of your style")


def test_folders_that_are_to_be_given_are_asked_for_together(sweep: Run) -> None:
    refused(sweep("data=folder"), "data.path=MY_PICTURES", "data.references=HELD_OUT_PICTURES", "keep 10 to 30 aside")


@pytest.mark.parametrize("module", ["sweep.plan", "sweep.captions"])
def test_plans_and_captions_need_no_references(module: str, pictures: Path, tmp_path: Path) -> None:
    where = ("data=folder", f"data.path={pictures}", f"study.folder={tmp_path}/multirun")
    ran = command("-m", module, *where, cwd=ROOT)
    assert ran.code == 0, ran.text


def test_a_card_by_its_number_is_refused_where_every_slot_has_its_own(sweep: Run) -> None:
    refused(sweep("-m", "study.slots=2", "base.device=cuda:1"), "`base.device`=cuda:1", "set base.device=auto")


def test_a_disk_without_room_is_refused(either: Run) -> None:
    refused(either("study.min_free_gb=1e9"), "no room", "study.min_free_gb", "study.folder")


def test_everything_wrong_with_the_inputs_is_named_at_once(either: Run) -> None:
    refused(
        either("data.path=nowhere", "base.path=/no/base", "study.min_free_gb=1e9"), "nowhere", "/no/base", "no room"
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["-m", "search.n_trials=0", "search.startup=0", "captions=edted", "mix=nix", "data.path=nowhere"],
            ["n_trials", "startup", "captions/edted", "mix/nix", "`data.path`: no such folder"],
        ),
        (
            [
                "-m",
                "captions=choice(none,edted)",
                "train.lora.rank=range(3,3)",
                "search.enqueue=[nix]",
                "base.path=/no",
            ],
            ["captions/edted", "empty range", "no experiment nix", "`base.path`=/no"],
        ),
        (
            ["-m", "captions=choice(none,edted,nix)", "train.lora.rank=choice(0,4)", "base.path=/no"],
            ["captions/edted", "captions/nix", "with train.lora.rank=0", "`base.path`=/no"],
        ),
        (
            ["-m", "search.sampler=cmaes", "captions=choice(none,edted)", "train.lora.rank=0", "base.path=/no"],
            ["cmaes searches numbers alone", "captions/edted", "`train.lora.rank`", "`base.path`=/no"],
        ),
        (
            ["-m", "search.n_trials=choice(1,2)", "study.slots=1,2", "captions=none,edted"],
            ["`search.n_trials` cannot", "`study.slots` cannot", "captions/edted"],
        ),
        (
            ["train.lora.rank=many", "sampel.steps=3", "sample.steps=0", "data=folder", "base.device=gpu"],
            ["rank=many", "'sampel.steps'", "`sample.steps`", "data.path=MY_PICTURES", "`base.device` must be auto"],
        ),
        (
            ["-cd", ".", "-m", "experiment=nix", "train.lora.rank=0"],
            ["experiment/nix", "`train.lora.rank`"],
        ),
        (
            ["hydra.mode=MULTIRUN", "captions=edted", "train.lora.rank=0"],
            ["captions/edted", "`train.lora.rank`"],
        ),
        (
            ["captions=none,trigger", "train.lora.rank=0"],
            ["captions=none,trigger", "add --multirun", "train.lora.rank"],
        ),
    ],
)
def test_faults_of_every_kind_are_named_at_once(words: list[str], parts: list[str], sweep: Run, tmp_path: Path) -> None:
    refused(sweep(*words), *parts)
    assert not list(tmp_path.rglob("*"))


def test_a_folder_of_more_configurations_is_read_and_a_missing_one_refused(sweep: Run, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrain:\n  seed: -3\n  checkpoints: 0\n")
    for flag in (["-cd", str(tmp_path)], [f"--config-dir={tmp_path}"]):
        refused(sweep(*flag, "experiment=mine"), "`train.checkpoints` must be at least 1")
    refused(sweep("-cd", f"{tmp_path}/nowhere", "experiment=mine"), "-cd: no such folder", "nowhere")


def test_a_setting_may_name_what_hydra_knows_of_the_run(sweep: Run) -> None:
    """A refusal looks at the configuration before Hydra runs, and must not stumble over Hydra's own words."""
    refused(sweep("data.path=${hydra:runtime.output_dir}/pictures"), "`data.path`: no such folder", "single")
    refused(sweep("data.path=${hydra:runtime.cwd}/nowhere", "hydra.mode=MULTIRUN"), f"{ROOT}/nowhere")
    refused(sweep("data.path=${hydra:runtime.cwd}/nowhere", "-m"), f"{ROOT}/nowhere")


@pytest.mark.parametrize("words", [["data.path=/nowhere", "captions=nope"], ["-m", "captions=none,nope"]])
def test_a_refusal_loads_neither_optuna_nor_numpy(words: list[str]) -> None:
    begin = [sys.executable, "-X", "importtime", "-m", "sweep"]
    ran = subprocess.run([*begin, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = {line.rsplit("|", 1)[1].strip() for line in ran.stderr.splitlines() if line.count("|") == 2}
    assert ran.returncode == 2 and "sweep.preflight" in loaded
    assert not {"optuna", "numpy", "torch"} & loaded


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_place_that_takes_no_file_is_told_without_a_trace_at_any_time(number: int) -> None:
    def never() -> None: ...

    job = Job(never, None, None)
    job.begun = True
    fault = OSError(number, os.strerror(number), "multirun/x/report.md")
    assert job.is_refusal(fault) and not job.is_refusal(OSError(errno.EIO, "torn"))
    assert "multirun/x/report.md" in message(fault) and "study.folder=" in message(fault)


def test_a_refused_run_leaves_no_folder_and_an_earlier_run_keeps_its_own(sweep: Run, tmp_path: Path) -> None:
    refused(sweep("base.path=/no/base"), "/no/base")
    assert not list(tmp_path.rglob("*/single/*"))
    kept = tmp_path / "run" / "outcome.json"
    kept.parent.mkdir()
    kept.touch()
    refused(sweep("base.path=/no/base", f"hydra.run.dir={kept.parent}"), "/no/base")
    assert kept.is_file()


def test_two_single_runs_in_one_folder_never_meet(sweep: Run, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run", "the test", ""):
        refused(sweep(f"hydra.run.dir={tmp_path}/run"), str(tmp_path / "run"), f"(id {os.getpid()})", "wait for it")
    assert not (tmp_path / "run" / "plan.txt").exists()


def test_a_password_is_refused_before_it_is_written_or_said(either: Run, tmp_path: Path) -> None:
    ran = either("study.storage=postgresql://me:s3cret@host/db")
    refused(ran, "`study.storage` holds a password", "PGPASSWORD")
    assert "s3cret" not in ran.text
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("module", ["plan", "score", "report", "dashboard"])
def test_the_other_commands_refuse_in_one_message_too(module: str, tmp_path: Path) -> None:
    wrong = {
        "plan": ["data.path=nowhere"],
        "score": ["nowhere.safetensors"],
        "report": [f"study.folder={tmp_path}"],
        "dashboard": [str(tmp_path)],
    }
    refused(command("-m", f"sweep.{module}", *wrong[module], cwd=ROOT))


def test_a_study_with_another_space_is_refused_and_left_as_it_was(sweep: Run, tmp_path: Path) -> None:
    study = tmp_path / "multirun" / "anatomy_engraving"
    space = {"captions": CategoricalDistribution(("none", "edited"))}
    open_study(study, SearchSettings(), space, {}).ask(space)  # without a trial it might begin anew
    refused(sweep("-m"), "another search space", "study.name=anatomy_engraving_2", "was changed")
    assert len(load_study(study).trials) == 1


def test_a_study_that_cannot_be_read_is_refused(sweep: Run, tmp_path: Path) -> None:
    study = tmp_path / "multirun" / "anatomy_engraving"
    study.mkdir(parents=True)
    (study / "study.db").write_text("this is not a database, however often one reads it\n" * 100)
    refused(sweep("-m"), "study.db", "study.name=anatomy_engraving_2")


@pytest.mark.parametrize("module", ["plan", "score", "report"])
def test_the_other_commands_are_no_sweeps(module: str, tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    lora.touch()
    words = [str(lora)] if module == "score" else []
    ran = command("-m", f"sweep.{module}", *words, "-m", f"study.folder={tmp_path}/multirun", cwd=ROOT)
    refused(ran, "without -m", "python -m sweep -m")
    assert not (tmp_path / "multirun").exists()


def test_help_is_there_at_once_and_names_the_settings() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        ran = command("-m", "sweep", "--help", cwd=ROOT)
        times.append(time.perf_counter() - began)
        assert ran.code == 0 and "images_seen" in ran.out
    # Half a second on an idle machine; the bound allows for a busy one. That torch stays out has its own test below.
    assert min(times) < 10, times


def test_neither_help_nor_a_refusal_loads_torch() -> None:
    look = (
        "import sys\nfrom sweep.__main__ import main\nsys.argv = ['sweep', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('loaded', sorted({{'torch', 'diffusers', 'open_clip', 'wandb'}} & set(sys.modules)))"
    )
    for arguments in (
        ["--help"],
        ["--help", "-m"],
        ["train.lora.rank=0"],
        ["captions=nix"],
        ["data.path=nowhere", "base.device=gpu"],
    ):
        ran = command("-c", look.format(arguments=arguments), cwd=ROOT)
        assert ran.out.splitlines()[-1] == "loaded []", ran.text
