"""`python -m sweep.score LORA_FILE`: samples and scores a LoRA that is there already, wherever it was trained.

Same overrides as `python -m sweep`: base, prompts, references and strengths come from the configuration.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from sweep.__main__ import WRONG_INPUT, Place, start
from sweep.outcome import FILE
from sweep.progress import StepProgress, print_outcome, shown
from sweep.schema import Config
from sweep.typed import python


def main(arguments: list[str]) -> None:
    """Takes the file out of the command line; Hydra gets the rest."""
    files = [argument for argument in arguments if argument.endswith(".safetensors") and "=" not in argument]
    asks_for_help = any(argument in ("--help", "-h", "--cfg", "-c") for argument in arguments)
    if not asks_for_help and (len(files) != 1 or not Path(files[0]).is_file()):
        given = f"no such file: {files[0]}" if len(files) == 1 else f"got {len(files)}"
        way = f"{python()} -m sweep.score LORA_FILE"
        print(f"error: name one LoRA file (.safetensors), {given}:\n  {way}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    sys.argv[1:] = [argument for argument in arguments if argument not in files]

    def score_file(config: Config, place: Place) -> None:
        from sweep.trial import score_lora

        steps = StepProgress()
        outcome, folder = score_lora(config, Path(files[0]))
        for candidate in outcome.candidates:
            broken = [name for name, value in candidate.constraints.items() if value > 0]
            verdict = f"ruled out: {', '.join(broken)}" if broken else "usable"
            found = f"style {candidate.style:.3f}, composition {candidate.composition:.3f}"
            steps.say(f"strength {candidate.strength:g}: {found}, {verdict}")
        print_outcome(outcome, folder, steps)
        steps.say(f"every value  {shown(folder / FILE)}")

    start(score_file, check=check, keeps_folder=False)


def check(configs: Mapping[str, Config]) -> None:
    """As before a training."""
    from sweep.preflight import check_inputs

    check_inputs(configs)


if __name__ == "__main__":
    main(sys.argv[1:])
