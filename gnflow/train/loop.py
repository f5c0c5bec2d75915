"""The whole of a run: what is there already, what has to be done, and what is left in the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from gnflow.compiler import build
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import compile as compile_plan
from gnflow.data.dataset import Standing
from gnflow.data.microbatches import Prepared, evaluation, reader, training
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.prepare import prepare
from gnflow.errors import DiskProblem
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import digest
from gnflow.spec.training import Curvature, Loss, ModalityConflict, Samples
from gnflow.train import checkpoint, lock, provenance, results
from gnflow.train.directory import (
    CHECKPOINTS,
    begun,
    clear,
    differences,
    establish,
    is_run,
    require_ours,
    set_aside,
)
from gnflow.train.fork import require_threads
from gnflow.train.journal import JOURNAL, Event, Journal
from gnflow.train.recorder import Observer, Recorder
from gnflow.train.reproducible import reproducible
from gnflow.train.run import Run
from gnflow.train.samples import Sampler
from gnflow.train.session import Session
from gnflow.train.signals import Stop
from gnflow.train.start import start
from gnflow.workspace import Workspace

ON_HELD_OUT = Loss | ModalityConflict | Curvature
Report: TypeAlias = Callable[[str], None]
Watch: TypeAlias = Callable[[Plan, Path], AbstractContextManager[Observer]]
"""Opens an observer on (plan, run directory) for as long as this process works on the run."""


def run(
    experiment: Experiment,
    workspace: Workspace | None = None,
    directory: Path | None = None,
    *,
    fresh: bool = False,
    supersede: bool = False,
    watches: Sequence[Watch] = (),
    report: Report = lambda line: None,
) -> Run:
    """Runs an experiment to its end, from wherever its directory says it is.

    `fresh` deletes what is there first; `supersede` moves a run of another spec aside, and resumes one of this spec.

    Raises SpecError, DataError, Diverged, Preempted, EnvironmentProblem, DiskProblem or Interrupted.
    """
    require_threads()
    workspace = workspace or Workspace.around(Path.cwd())
    directory = directory or workspace.runs / experiment.name
    require_ours(directory, experiment, fresh or supersede)
    other = supersede and is_run(directory) and begun(directory) and bool(differences(directory, experiment))
    if not fresh and not other and results.complete(directory):
        report(f"{directory} is finished; --fresh would run it again")
        return Run.load(directory)
    with Stop(report) as stop, reproducible(workspace):
        planned = plan(experiment)
        with lock.held(directory):
            require_ours(directory, experiment, fresh or supersede)
            if other:
                report(f"the run of another spec that was here is now in {set_aside(directory)}")
            if fresh:
                clear(directory)
            establish(directory, experiment, planned.to_json())
            with closing(Journal(directory / JOURNAL)) as journal:
                _work(planned, workspace, directory, journal, stop, watches, report)
    return Run.load(directory)


def _work(
    planned: Plan,
    workspace: Workspace,
    directory: Path,
    journal: Journal,
    stop: Stop,
    watches: Sequence[Watch],
    report: Report,
) -> None:
    checkpoints = directory / CHECKPOINTS
    checkpoint.sweep(checkpoints)
    source = _resume_point(checkpoints, journal, report)
    if source is not None and results.finished(planned, journal.steps[checkpoint.step_of(source)]):
        with _watching(watches, planned, directory) as observers:
            for observer in observers:
                observer.recorded(journal.steps[checkpoint.step_of(source)])
            results.write_all(directory, planned, journal.steps, source)
        return
    experiment = planned.experiment
    dataset = prepare(experiment.data, workspace, report)
    provenance.require_same_data(directory, dataset.digest, dataset.directory)
    program = compile_plan(planned)
    provenance.record(
        directory,
        workspace.root,
        digests={"spec": digest(experiment), "data": dataset.digest},
        seeds={"training": experiment.training.seed},
        device=program.device,
        resumed_from=None if source is None else checkpoint.step_of(source),
        report=report,
    )
    params = start(planned, program, dataset, workspace, report) if source is None else {}
    with _watching(watches, planned, directory) as observers:
        session = Session(
            planned,
            program,
            training(dataset, experiment.training.rows, experiment.data.context, experiment.training.seed),
            _evaluation(planned, dataset),
            directory,
            checkpoints,
            Recorder(journal, planned, observers),
            stop,
            _sampler(planned, dataset, directory),
            Standing(dataset.directory).require,
            reader(dataset, experiment.data),
        )
        stop.patient = True
        state = session.begin(params) if source is None else session.resume(source)
        state = session.train(state)
        results.write_all(directory, planned, journal.steps, checkpoint.path_of(checkpoints, state.step))


@contextmanager
def _watching(watches: Sequence[Watch], planned: Plan, directory: Path) -> Iterator[list[Observer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(watch(planned, directory)) for watch in watches]


def _resume_point(checkpoints: Path, journal: Journal, report: Report) -> Path | None:
    """The newest good checkpoint that the journal reaches; None for a run that has none yet. Raises DiskProblem."""
    found = checkpoint.newest(checkpoints, journal.reaches)
    for step, problem in found.damage.items():
        name = checkpoint.path_of(checkpoints, step).name
        instead = f"; going on from {found.path.name}" if found.path else ""
        report(f"warning: checkpoint {name} is not used: {problem}{instead}")
        journal.record(Event(step, time.time(), "damaged", f"checkpoint {name} is not used: {problem}"))
    for number in journal.damaged:
        report(f"warning: line {number} of {journal.path} cannot be read; its step is computed again")
    if found.path is None and found.damage:
        raise DiskProblem(f"{checkpoints} has no good checkpoint left; --fresh starts the run again")
    return found.path


def _evaluation(planned: Plan, dataset: Prepared) -> Tensor | None:
    """As many held-out micro-batches as the metric that asks for most."""
    experiment = planned.experiment
    counts = [metric.microbatches for metric in experiment.metrics if isinstance(metric, ON_HELD_OUT)]
    return evaluation(dataset, experiment.training.rows, experiment.data.context, max(counts)) if counts else None


def _sampler(planned: Plan, dataset: Prepared, directory: Path) -> Sampler | None:
    """What writes sheets of samples, where they are asked for."""
    experiment = planned.experiment
    wanted = next((metric for metric in experiment.metrics if isinstance(metric, Samples)), None)
    if wanted is None or not isinstance(dataset, MultimodalDataset):
        return None
    network = build.model(experiment, planned.attention)
    return Sampler(wanted, network, dataset, experiment.training.seed, directory / results.SAMPLES)
