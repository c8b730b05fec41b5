"""`python -m sweep.report wandb`: the study as a report in Weights & Biases, for which one has to be logged in.

Text, the front, parallel coordinates, the pictures and the run comparer, over the runs that the study has there.
"""

import os
from typing import Any

from sweep.answers import state
from sweep.door import Place, start
from sweep.errors import InputError
from sweep.findings import Findings, find
from sweep.lines import StepProgress
from sweep.notes import study_note
from sweep.schema import Config
from sweep.settings import study_folder
from sweep.study import load_study
from sweep.tracking import without_machine


def publish(config: Config, place: Place) -> None:
    """Publishes the report and says where it is.

    Raises:
        InputError: without wandb-workspaces, without a login, or when W&B refuses.
    """
    folder = study_folder(config.study)
    found = find(load_study(folder), folder)
    workspaces = _library()
    import wandb

    if os.environ.get("WANDB_MODE", "online") != "online" or not wandb.login(prompt=False):
        raise InputError(
            "a Weights & Biases report needs an account: log in with `wandb login`, or read report.html, which has it"
            " all and needs none"
        )
    try:
        entity = config.track.entity or wandb.Api().default_entity
        made = build(workspaces, found, entity=str(entity), project=config.track.project)
        made.save()
    # wandb raises its own errors, those of requests and of its service; all of them mean that it did not work.
    except Exception as fault:
        raise InputError(f"Weights & Biases did not take the report: {fault}") from fault
    StepProgress().say(f"report: {made.url}")


def _library() -> Any:
    try:
        import wandb_workspaces.reports.v2 as workspaces
    except ModuleNotFoundError:
        raise InputError("a Weights & Biases report needs one more package: pip install wandb-workspaces") from None
    return workspaces


def build(workspaces: Any, found: Findings, *, entity: str, project: str) -> Any:
    """The report, not yet saved; asks the server for the project."""
    trials = workspaces.Runset(
        entity=entity,
        project=project,
        name="trials",
        filters=f"Metric('group') == '{found.name}' and Metric('jobType') == 'trial'",
    )
    values = [workspaces.SummaryMetric(name) for name in found.names]
    params = sorted({key for entry in found.entries for key in entry.trial.params})
    columns = [workspaces.ParallelCoordinatesPlotColumn(metric=workspaces.Config(key)) for key in params]
    columns += [workspaces.ParallelCoordinatesPlotColumn(metric=value) for value in values]
    panels = [
        workspaces.ScatterPlot(
            title="Every trial", x=values[0], y=values[-1], layout=workspaces.Layout(x=0, y=0, w=12, h=10)
        ),
        workspaces.ParallelCoordinatesPlot(columns=columns, layout=workspaces.Layout(x=12, y=0, w=12, h=10)),
        workspaces.MediaBrowser(media_keys=["contact_sheet"], layout=workspaces.Layout(x=0, y=10, w=24, h=12)),
        workspaces.RunComparer(diff_only="split", layout=workspaces.Layout(x=0, y=22, w=24, h=10)),
    ]
    return workspaces.Report(
        entity=entity,
        project=project,
        title=found.name,
        description=state(found),
        blocks=[
            workspaces.MarkdownBlock(without_machine(study_note(found).split("\n## ")[0])),
            workspaces.H2("Trials"),
            workspaces.PanelGrid(runsets=[trials], panels=panels),
        ],
    )


def main() -> None:
    """The command."""
    start(publish, keeps_folder=False, of_study=True)


if __name__ == "__main__":
    main()
