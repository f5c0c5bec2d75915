"""Run an experiment from the state of its directory to its end, and write its results."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gnflow import streams
from gnflow.compiler import fits
from gnflow.compiler.devices import require_use, share_out
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import compile as compile_plan
from gnflow.crew import ALONE, Crew
from gnflow.data.dataset import Standing
from gnflow.data.microbatches import make_reader
from gnflow.data.prepare import prepare
from gnflow.errors import DiskProblem
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import digest
from gnflow.train import checkpoint, disk, lock, origin, provenance, results
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
    LOGS,
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
from gnflow.train.shared import require_shared
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
    crew: Crew = ALONE,
) -> Run:
    """Run an experiment to its end, starting from the state of its directory.

    `fresh` deletes an existing run first. `supersede` moves a run of another spec aside, and resumes a run of this
    spec. `extend` lets a run continue to a later end, if none of its steps depends on the end. All processes of `crew`
    call this function, and only process 0 reports and writes.

    Raises SpecError, DataError, Diverged, Preempted, EnvironmentProblem, DiskProblem or Interrupted.
    """
    require_threads()
    workspace = workspace or Workspace.find(Path.cwd())
    directory = directory or workspace.runs / experiment.name
    if not crew.leads:
        watches, report = (), lambda line: None
    how = crew.run_first(
        lambda: _look(directory, experiment, fresh=fresh, supersede=supersede, extend=extend),
        lambda: Opening(False, False, {}, False),
    )
    if crew.tell(how.finished):
        more = "give more `training.steps` to extend it" if extend else "--fresh would run it again"
        report(f"{directory} is finished; {more}")
        return Run.load(directory)
    with Stop(report) as stop, make_reproducible(workspace):
        planned = plan(experiment)
        crew.lead(lambda: require_use(planned, crew.size))
        room = fits.require_fit(planned)
        if room is not None and room.verdict != "fits":
            report(f"warning: {room}")
        with fits.explain_out_of_memory(planned), ExitStack() as stack:
            crew.lead(lambda: stack.enter_context(lock.hold(directory)))
            changed = crew.run_first(lambda: _open(directory, planned, how, fresh, extend, report), lambda: how.changed)
            require_shared(crew, directory)
            if not crew.leads:
                streams.redirect(directory / LOGS / f"rank_{crew.rank}.txt")
            journal = crew.run_first(
                lambda: Journal(directory / JOURNAL), lambda: Journal(directory / JOURNAL, writes=False)
            )
            with closing(journal):
                try:
                    crew.lead(lambda: _change(directory, journal, planned, changed, report))
                    _work(planned, workspace, directory, journal, stop, watches, report, changed, crew)
                except disk.Gone as gone:
                    raise disk.Gone(f"{gone}.\n{_describe_loss(journal, gone.moved)}", gone.moved) from gone
    return Run.load(directory)


class Opening(NamedTuple):
    """The state of the directory before the run opens it."""

    other: bool
    """Whether the run of another spec has to be moved aside."""
    replacing: bool
    changed: Differences
    finished: bool


def _look(directory: Path, experiment: Experiment, *, fresh: bool, supersede: bool, extend: bool) -> Opening:
    known = is_run(directory) and has_begun(directory)
    other = supersede and known and is_refused(find_differences(directory, experiment), experiment, extend=False)
    replacing = fresh or other or (supersede and not is_run(directory))
    changed = require_ours(directory, experiment, replacing, extend)
    finished = not replacing and not any(map(is_about_end, changed)) and results.is_complete(directory)
    return Opening(other, replacing, changed, finished)


def _open(directory: Path, planned: Plan, how: Opening, fresh: bool, extend: bool, report: Report) -> Differences:
    """Bring the locked directory into the state in which the run begins or continues. Return what changes."""
    changed = require_ours(directory, planned.experiment, how.replacing, extend)
    if how.other:
        aside = set_aside(directory)
        report(f"the run of another spec that was here is now in {aside}")
    if fresh:
        clear(directory)
    if not changed:
        establish(directory, planned.experiment, planned.to_json())
    if planned.evaluation.remark:
        report(planned.evaluation.remark)
    return changed


def _change(directory: Path, journal: Journal, planned: Plan, changed: Differences, report: Report) -> None:
    if changed:
        _record_changes(journal, planned, changed, report)
        establish(directory, planned.experiment, planned.to_json(), changed=True)


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
    crew: Crew,
) -> None:
    checkpoints = directory / CHECKPOINTS
    crew.lead(lambda: checkpoint.sweep(checkpoints))
    step = crew.tell(crew.run_first(lambda: _resume_step(checkpoints, journal, report), lambda: None))
    source = None if step is None else checkpoint.make_path(checkpoints, step)
    if step is not None and source is not None and results.is_finished(planned, journal.steps[step]):
        with _watch(watches, planned, directory) as observers:
            for observer in observers:
                observer.hear(journal.steps[step])
            crew.lead(lambda: results.write_all(directory, planned, journal.steps, source))
        return
    experiment = planned.experiment
    # The first process prepares what is not there yet, and the others read it.
    dataset = crew.run_first(lambda: prepare(experiment.data, workspace, report))
    standing = Standing(dataset.directory)
    crew.lead(lambda: provenance.require_same_data(directory, dataset.digest, dataset.directory))
    weights = crew.run_first(
        lambda: _identify_weights(planned, workspace, directory, journal, step, report), lambda: dict[str, str]()
    )
    durations = Durations(workspace, experiment)
    program = compile_plan(
        planned, notice=lambda region: report(durations.describe(COMPILING.format(region))), crew=crew
    )
    crew.lead(
        lambda: provenance.record(
            directory,
            workspace.root,
            digests={"spec": digest(experiment), "data": dataset.digest, **weights},
            seeds={"training": experiment.training.seed},
            device=program.device,
            resumed_from=step,
            plugins=list_plugins(experiment),
            changed=changed,
            processes=crew.size,
            sent=share_out(planned, crew.size)[0].sent,
            report=report,
        )
    )
    params = crew.run_first(lambda: make_start(planned, program, dataset, workspace, report)) if source is None else {}
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
            if crew.leads:
                regions = program.compiler.regions if program.compiler else ()
                durations.keep({COMPILING.format(region.name): region.seconds for region in regions})
        last = checkpoint.make_path(checkpoints, state.step)
        crew.lead(lambda: results.write_all(directory, planned, journal.steps, last))


def _identify_weights(
    planned: Plan, workspace: Workspace, directory: Path, journal: Journal, step: int | None, report: Report
) -> dict[str, str]:
    """Return the digest of the weights that the run began with, if any, and report that those there are now others."""
    found = origin.find_origin(planned.experiment, workspace)
    if step is None:
        return {origin.KEY: found.sha256} if found and found.sha256 else {}
    if change := origin.describe_change(directory, found):
        report(f"warning: {change}")
        journal.record(Event(step, time.time(), origin.CHANGED, change))
    began = provenance.read_digest(directory, origin.KEY)
    return {origin.KEY: began} if began else {}


@contextmanager
def _watch(watches: Sequence[Watch], planned: Plan, directory: Path) -> Iterator[list[Observer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(watch(planned, directory)) for watch in watches]


def _resume_step(checkpoints: Path, journal: Journal, report: Report) -> int | None:
    """Find the newest good checkpoint that the journal covers, and return its step; None if there is none yet.

    Raises DiskProblem if all are damaged.
    """
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
    return None if found.path is None else checkpoint.read_step(found.path)
