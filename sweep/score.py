"""`python -m sweep.score LORA_FILE …`: samples and scores LoRAs that are there already, wherever they were trained.

One file is scored by itself; several are ranked, in a study of their own with its report, its ties and intervals. Same
overrides as `python -m sweep`: base, training pictures, references, prompts and strengths come from the configuration.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from sweep.__main__ import main as sweep
from sweep.door import Place, start
from sweep.effects import KEY
from sweep.lines import StepProgress, shown
from sweep.outcome import FILE
from sweep.schema import Config
from sweep.typed import python, refuse


def main(arguments: Sequence[str]) -> None:
    """Makes settings of the files on the command line; Hydra gets the rest."""
    named = [argument for argument in arguments if argument.endswith(".safetensors")]
    files = [name for name in named if "=" not in name or Path(name).is_file()]  # the others are settings
    words = [argument for argument in arguments if argument not in files]
    if {"--help", "-h", "--cfg", "-c"}.isdisjoint(words):
        _check_files(files)
        words.append(f"{KEY}={','.join(map(_quoted, files))}")
    if len(files) > 1:
        has_name = any(word.startswith("study.name=") for word in words)
        sys.argv[1:] = ["-m", *words, *([] if has_name else [f"study.name={_quoted(_folder_of(files[0]))}"])]
        sweep()
    else:
        sys.argv[1:] = words
        start(_score, check=_check, keeps_folder=False)


def _check_files(files: Sequence[str]) -> None:
    missing = [file for file in files if not Path(file).is_file()]
    if files and not missing:
        return
    found = f"no such file: {', '.join(missing)}" if missing else "none was named"
    refuse(f"name LoRA files (.safetensors), {found}:\n    {python()} -m sweep.score LORA_FILE")


def _quoted(text: str) -> str:
    """A value as Hydra reads it, whatever signs are in it."""
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def _folder_of(file: str) -> str:
    return Path(file).absolute().parent.name


def _check(configs: Mapping[str, Config]) -> None:
    from sweep.preflight import check_inputs

    check_inputs(configs)


def _score(config: Config, place: Place) -> None:
    from sweep.contents import content_id
    from sweep.trial import run_trial

    lora = Path(config.eval.lora)
    asked = "\x1f".join([content_id(lora), *sorted(word for word in place.overrides if not word.startswith(KEY))])
    digest = blake2b(asked.encode(), digest_size=4).hexdigest()
    folder = Path(config.study.folder).absolute() / "scored" / f"{lora.stem}-{digest}"
    outcome = run_trial(replace(config, track=replace(config.track, wandb=False)), folder=folder)
    steps = StepProgress()
    for candidate in outcome.candidates:
        broken = [name for name, value in candidate.constraints.items() if value > 0]
        verdict = f"ruled out: {', '.join(broken)}" if broken else "usable"
        found = f"style {candidate.style:.3f}, composition {candidate.composition:.3f}"
        steps.say(f"strength {candidate.strength:g}: {found}, {verdict}")
    steps.say(f"every value  {shown(folder / FILE)}")


if __name__ == "__main__":
    main(sys.argv[1:])
