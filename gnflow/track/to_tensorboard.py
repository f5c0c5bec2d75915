"""Event files for TensorBoard, in the directory of a run. Each opening writes all of them anew from the journal."""

from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter

from gnflow.records import Status, Step, TrackedRun, Tracker
from gnflow.spec.canonical import format_lines
from gnflow.spec.tracking import TensorBoard

FOLDER = "tensorboard"
FILES = "events.out.tfevents.*"


class EventFiles(Tracker):
    """The event files of one run: a scalar for each value of a step, with its time, and the spec as text."""

    def __init__(self, run: TrackedRun) -> None:
        self._directory = run.directory / FOLDER
        for old in self._directory.glob(FILES):
            old.unlink()
        self.place = f"in {self._directory}"
        self._last = -1
        self._writer = SummaryWriter(str(self._directory))
        text = "".join(f"    {line}\n" for line in format_lines(run.spec))
        self._writer.add_text("spec", text, walltime=run.began)

    def send(self, steps: Sequence[Step]) -> None:
        """Write these steps, and show them at once."""
        for step in steps:
            if step.step <= self._last:  # readers forget this step and all later ones of the files before
                self._writer.close()
                self._writer = SummaryWriter(str(self._directory), purge_step=step.step)
            self._last = step.step
            for key, value in step.values.items():
                self._writer.add_scalar(key, value, step.step, walltime=step.time)
        self._writer.flush()

    def finish(self, status: Status, ended: float) -> None:
        """Write how the run ended, and close the files."""
        self._writer.add_text("status", status, max(self._last, 0), walltime=ended)
        self._writer.close()

    def abandon(self) -> None:
        """Close the files."""
        self._writer.close()


def open_tensorboard(section: TensorBoard, run: TrackedRun) -> EventFiles:
    """Open the event files of a run; the spec of the tracker names this function as its factory."""
    return EventFiles(run)
