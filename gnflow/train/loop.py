"""Run an experiment from the state of its directory to its end, and write its results."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from gnflow.compiler import fits
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import compile as compile_plan
from gnflow.data.dataset import Standing
from gnflow.data.microbatches import make_reader
from gnflow.data.prepare import prepare
from gnflow.errors import DiskProblem
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import digest
from gnflow.train import checkpoint, disk, lock, provenance, results
from gnflow.train.changes import (
    CHANGED,
    EXTENDED,
    Differences,
    describe_changes,
    find_last_step,
    is_about_end,
    is_refused,
    require_later,
)
from gnflow.train.directory import (
    CHECKPOINTS,
    clear,
    establish,
    find_differences,
    has_begun,
    is_run,
    require_ours,
    set_aside,
)
from gnflow.train.durations import Durations
from gnflow.train.feed import make_microbatches, take_held_out
from gnflow.train.fork import require_threads
from gnflow.train.journal import JOURNAL, Event, Journal
from gnflow.train.plugins import list_plugins
from gnflow.train.recorder import Observer, Recorder
from gnflow.train.reproducible import make_reproducible
from gnflow.train.run import Run
from gnflow.train.session import Session
from gnflow.train.signals import Stop
from gnflow.train.start import make_start
from gnflow.workspace import Workspace

COMPILING = "compiling region `{}`"
Report: TypeAlias = Callable[[str], None]
Watch: TypeAlias = Callable[[Plan, Path], AbstractContextManager[Observer]]
"""A function of (plan, run directory) that opens an observer for as long as this process works on the run."""


def run(
    experiment: Experiment,
    workspace: Workspace | None = None,
    directory: Path | None = None,
    *,
    fresh: bool = False,
    supersede: bool = False,
    extend: bool = False,
    watches: Sequence[Watch] = (),
    report: Report = lambda line: None,
) -> Run:
    """Run an experiment to its end, starting from the state of its directory.

    `fresh` deletes an existing run first. `supersede` moves a run of another spec aside, and resumes a run of this
    spec. `extend` lets a run continue to a later end, if none of its steps depends on the end.

    Raises SpecError, DataError, Diverged, Preempted, EnvironmentProblem, DiskProblem or Interrupted.
    """
    require_threads()
    workspace = workspace or Workspace.find(Path.cwd())
    directory = directory or workspace.runs / experiment.name
    known = is_run(directory) and has_begun(directory)
    other = supersede and known and is_refused(find_differences(directory, experiment), experiment, extend=False)
    replacing = fresh or other or (supersede and not is_run(directory))
    changed = require_ours(directory, experiment, replacing, extend)
    if not replacing and not any(map(is_about_end, changed)) and results.is_complete(directory):
        more = "give more `training.steps` to extend it" if extend else "--fresh would run it again"
        report(f"{directory} is finished; {more}")
        return Run.load(directory)
    with Stop(report) as stop, make_reproducible(workspace):
        planned = plan(experiment)
        room = fits.require_fit(planned)
        if room is not None and room.verdict != "fits":
            report(f"warning: {room}")
        with fits.explain_out_of_memory(planned), lock.hold(directory):
            changed = require_ours(directory, experiment, replacing, extend)
            if other:
                aside = set_aside(directory)
                report(f"the run of another spec that was here is now in {aside}")
            if fresh:
                clear(directory)
            if planned.evaluation.remark:
                report(planned.evaluation.remark)
            if not changed:
                establish(directory, experiment, planned.to_json())
            with closing(Journal(directory / JOURNAL)) as journal:
                try:
                    if changed:
                        _record_changes(journal, planned, changed, report)
                        establish(directory, experiment, planned.to_json(), changed=True)
                    _work(planned, workspace, directory, journal, stop, watches, report, changed)
                except disk.Gone as gone:
                    raise disk.Gone(f"{gone}.\n{_describe_loss(journal, gone.moved)}", gone.moved) from gone
    return Run.load(directory)


def _record_changes(journal: Journal, planned: Plan, changed: Differences, report: Report) -> None:
    """Write to the journal what changes from here on. Raises SpecError if the new end is not after the last step."""
    last = find_last_step(journal.steps)
    longer = any(map(is_about_end, changed))
    if longer:
        reached = [step for step, record in journal.steps.items() if results.has_reached_target(planned, record)]
        require_later(last, planned.steps, min(reached, default=None))
    name = EXTENDED if longer else CHANGED
    report(f"the existing run continues from step {last}, {name}: {describe_changes(changed)}")
    journal.record(Event(last, time.time(), name, describe_changes(changed)))
    journal.sync()  # the spec that is written next ends the difference, so the event must be on the disk by then


def _describe_loss(journal: Journal, moved: bool) -> str:
    """Say what is lost with the directory of a run."""
    step = journal.last.step if journal.last else 0
    minutes = journal.last.values.get("time/wall", 0.0) / 60 if journal.last else 0.0
    if moved:
        return f"Step {step} was the last on record; give --run-dir its new place, and the run resumes there."
    return (
        f"The records and checkpoints of all steps up to {step} are lost ({minutes:,.1f} minutes of work); "
        "the same command begins the run again."
    )


def _work(
    planned: Plan,
    workspace: Workspace,
    directory: Path,
    journal: Journal,
    stop: Stop,
    watches: Sequence[Watch],
    report: Report,
    changed: Differences,
) -> None:
    checkpoints = directory / CHECKPOINTS
    checkpoint.sweep(checkpoints)
    source = _find_resume_point(checkpoints, journal, report)
    if source is not None and results.is_finished(planned, journal.steps[checkpoint.read_step(source)]):
        with _watch(watches, planned, directory) as observers:
            for observer in observers:
                observer.hear(journal.steps[checkpoint.read_step(source)])
            results.write_all(directory, planned, journal.steps, source)
        return
    experiment = planned.experiment
    dataset = prepare(experiment.data, workspace, report)
    standing = Standing(dataset.directory)
    provenance.require_same_data(directory, dataset.digest, dataset.directory)
    durations = Durations(workspace, experiment)
    program = compile_plan(planned, notice=lambda region: report(durations.describe(COMPILING.format(region))))
    provenance.record(
        directory,
        workspace.root,
        digests={"spec": digest(experiment), "data": dataset.digest},
        seeds={"training": experiment.training.seed},
        device=program.device,
        resumed_from=None if source is None else checkpoint.read_step(source),
        plugins=list_plugins(experiment),
        changed=changed,
        report=report,
    )
    params = make_start(planned, program, dataset, workspace, report) if source is None else {}
    with _watch(watches, planned, directory) as observers:
        session = Session(
            planned,
            program,
            make_microbatches(planned, dataset),
            take_held_out(planned, dataset),
            directory,
            checkpoints,
            Recorder(journal, planned, observers),
            stop,
            standing.require_unchanged,
            make_reader(dataset),
            dataset,
        )
        stop.patient = True
        try:
            state = session.begin(params) if source is None else session.resume(source)
            state = session.train(state)
        finally:
            regions = program.compiler.regions if program.compiler else ()
            durations.keep({COMPILING.format(region.name): region.seconds for region in regions})
        results.write_all(directory, planned, journal.steps, checkpoint.make_path(checkpoints, state.step))


@contextmanager
def _watch(watches: Sequence[Watch], planned: Plan, directory: Path) -> Iterator[list[Observer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(watch(planned, directory)) for watch in watches]


def _find_resume_point(checkpoints: Path, journal: Journal, report: Report) -> Path | None:
    """Find the newest good checkpoint that the journal covers; None if the run has none yet. Raises DiskProblem."""
    found = checkpoint.find_newest(checkpoints, journal.reaches)
    for step, problem in found.damage.items():
        name = checkpoint.make_path(checkpoints, step).name
        instead = f"; the run continues from {found.path.name}" if found.path else ""
        report(f"warning: checkpoint {name} is not used: {problem}{instead}")
        journal.record(Event(step, time.time(), "damaged", f"checkpoint {name} is not used: {problem}"))
    for number in journal.damaged:
        report(f"warning: line {number} of {journal.path} cannot be read; its step is computed again")
    if found.path is None and found.damage:
        raise DiskProblem(f"{checkpoints} has no good checkpoint left; --fresh starts the run again")
    return found.path
