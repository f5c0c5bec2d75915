"""A run for Weights & Biases, written offline unless the spec asks for more. Each opening tells it all steps again."""

import os
import shutil
from collections.abc import Sequence

from gnflow.records import Status, Step, TrackedRun, Tracker
from gnflow.spec.tracking import Wandb

FOLDER = "wandb"


class WandbRun(Tracker):
    """One run of Weights & Biases, under the identity that the run has everywhere. It keeps no code and no output."""

    def __init__(self, section: Wandb, run: TrackedRun) -> None:
        import wandb

        folder = run.directory / FOLDER
        for old in folder.glob(f"offline-run-*-{run.identity}"):
            shutil.rmtree(old)
        self.place = f"in {folder}"
        self._run = wandb.init(
            dir=str(run.directory),
            id=run.identity,
            name=run.title,
            project=section.experiment,
            group=section.study,
            config=dict(run.spec),
            mode=os.environ.get("WANDB_MODE") or section.mode,
            resume="allow",
            reinit="create_new",  # a process may track several runs
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def send(self, steps: Sequence[Step]) -> None:
        """Log these steps. Weights & Biases itself drops steps with a number that it already has."""
        for step in steps:
            self._run.log({**step.values, "_timestamp": step.time}, step=step.step)

    def finish(self, status: Status, ended: float) -> None:
        """Close the run, with exit code 0 if it reached its end."""
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)

    def abandon(self) -> None:
        """Close the run as failed."""
        self._run.finish(exit_code=1)


def open_wandb(section: Wandb, run: TrackedRun) -> WandbRun:
    """Open the run; the spec of the tracker names this function as its factory."""
    return WandbRun(section, run)
