"""`gnflow new NAME`: write a spec to begin with, and say what to do next."""

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from gnflow.commands.lacking import find_missing
from gnflow.data.sources import shakespeare
from gnflow.errors import DiskProblem, EnvironmentProblem, GnflowError, SpecError
from gnflow.spec.base import join_with_or
from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import list_shapes
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.like.draft import Draft
from gnflow.spec.like.readers import READERS
from gnflow.spec.load import load
from gnflow.spec.scaffold import (
    BUDGET,
    BUDGETS,
    SHAKESPEARE,
    WIDTH,
    list_kinds,
    make_example,
    write_derived,
    write_whole,
)
from gnflow.spec.suggest import find_nearest
from gnflow.spec.tree import Plain
from gnflow.track.description import read_json
from gnflow.track.location import check_available
from gnflow.workspace import Workspace

DEFAULT = "gauss_newton"


class Refusal(GnflowError):
    """No spec can be made under this name or for this optimizer."""

    exit_code = 2


class Rival(NamedTuple):
    """A run to compare the new run with, and the command that makes it if it does not exist."""

    name: str
    command: str | None = None
    why: str = ""


def write_spec(name: str, *, optimizer: str | None = None, base: Path | None = None, text: Sequence[str] = ()) -> int:
    """Write NAME.yaml, in specs/ if that folder exists, and print the next commands. `text` names files to train on.

    Raises Refusal for an invalid name or optimizer and for an existing file, and SpecError for a bad base.
    """
    with use_kinds_of(Workspace.find(Path.cwd())):
        name = name.removesuffix(".yaml")
        if optimizer is not None:
            require_optimizer(optimizer)
        file = _choose_file(name)
        experiment, content = _compose_spec(name, optimizer, base, file, text)
        save_new(file, _compose_heading(name, file) + content)
        return _show_next(experiment, file, base)


def write_like(name: str | None, tool: str, source: Path) -> int:
    """Write a spec from the settings of another tool, and print what has no counterpart and the next commands.

    Raises Refusal for an invalid name or tool and for an existing file, Unreadable for settings that cannot be read,
    and SpecError for values that a spec does not allow.
    """
    workspace = Workspace.find(Path.cwd())
    with use_kinds_of(workspace):
        reader = READERS.get(tool)
        if reader is None:
            raise Refusal(f"there is no tool `{tool}` to read settings of; expected {join_with_or(list(READERS))}")
        name = (name or reader.choose_name(source)).removesuffix(".yaml")
        require_name(name)
        draft = reader.read(source, workspace.root).complete(choose_source())
        file = _choose_file(name)
        about = f"{name}: {source.name} of {reader.title}"
        lacks = [f"  {lack}" for lack in draft.lacks]
        heading = "".join(_wrap_comment(line) for line in [f"{about}. Without a counterpart here:", *lacks])
        save_new(file, _compose_schema(file) + heading + draft.write(name) + _compose_tracking(draft))
        print("\n".join([f"{_format_path(file)} is made from {source}. Without a counterpart here:", *lacks]))
        return _show_next(load(file).experiment, file, None)


def require_optimizer(optimizer: str) -> None:
    """Raise Refusal, with the nearest name, unless there is such an optimizer."""
    if optimizer not in list_kinds():
        near = find_nearest(optimizer, list_kinds())
        hint = f"; did you mean `{near}`?" if near else f"; the optimizers are {', '.join(list_kinds())}"
        raise Refusal(f"there is no optimizer `{optimizer}`{hint}")


def require_name(name: str) -> None:
    """Raise Refusal unless a run can have this name."""
    try:
        make_example(name, DEFAULT)
    except ValidationError:
        raise Refusal(f"`{name}` cannot name a run: expected {list_shapes(Experiment)['name'].words}") from None


def save_new(file: Path, text: str) -> None:
    """Write a new spec. Raises Refusal if the file exists, and SpecError, leaving no file, if it is not valid."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise Refusal(f"{_format_path(file)} exists already; choose another name") from None
    except OSError as error:
        raise DiskProblem(f"cannot write {file}: {error.strerror or error}") from error
    try:
        load(file)  # a base may lie outside the project
    except SpecError:
        file.unlink()
        raise


def _show_next(experiment: Experiment, file: Path, base: Path | None) -> int:
    steps, lacks = experiment.training.steps, find_missing(experiment, Workspace.find(file))
    ready = "not ready to run yet" if lacks else "ready to run"
    print(f"{_format_path(file)}: {experiment.optimizer.kind}, {f'at most {steps} steps, ' if steps else ''}{ready}")
    print("".join(f"  missing for a run: {sentence}\n" for sentence in lacks), end="")
    print("\n".join(_list_commands(experiment, file, base, Workspace.find(Path.cwd()))))
    return 0


def _compose_spec(
    name: str, optimizer: str | None, base: Path | None, file: Path, text: Sequence[str]
) -> tuple[Experiment, str]:
    """Return the experiment and the text of its spec."""
    require_name(name)
    experiment = make_example(name, optimizer or DEFAULT, choose_source(text))
    if base is None:
        return experiment, write_whole(experiment) + _compose_tracking()
    found = load(base).experiment
    kind = optimizer or found.optimizer.kind
    method = found.optimizer if kind == found.optimizer.kind else experiment.optimizer
    other = {} if kind == found.optimizer.kind else {"tokens": None, **BUDGETS.get(kind, BUDGET)}
    training = found.training.model_copy(update=other)
    experiment = found.model_copy(update={"name": name, "optimizer": method, "training": training})
    return experiment, write_derived(experiment, os.path.relpath(base, file.parent), other)


def _compose_heading(name: str, file: Path) -> str:
    return (
        f"{_compose_schema(file)}# {name}: say here what you try, and why.\n"
        "# All values of the optimizer are here; of the other sections, only those that often change. Show the rest:\n"
        f"# gnflow explain {_format_path(file)}\n"
    )


def _compose_schema(file: Path) -> str:
    schema = next((path for path in (file.with_name("schema.json"), Path("schema.json")) if path.is_file()), None)
    return f"# yaml-language-server: $schema={os.path.relpath(schema, file.parent)}\n" if schema else ""


def choose_source(text: Sequence[str] = ()) -> Mapping[str, Plain]:
    """Return these files, or the plays of the shipped specs if they are installed, or the source code of NumPy."""
    if text:
        return {"kind": "files", "paths": list(text), "held_out_fraction": 0.1}
    try:
        shakespeare.require_installed()
    except EnvironmentProblem:
        return {
            "kind": "package",
            "distribution": "numpy",
            "version": version("numpy"),
            "paths": ["numpy/*/*.py"],
            "held_out": ["numpy/linalg/*.py", "numpy/polynomial/*.py"],
        }
    return SHAKESPEARE


def _compose_tracking(draft: Draft | None = None) -> str:
    """Return the line that turns tracking off if MLflow is not installed, so that the run works at once."""
    if draft is not None and any(each.path.startswith("tracking") for each in draft.given):
        return ""
    try:
        check_available()
    except EnvironmentProblem:
        return (
            "\n# MLflow is not installed here. Run `pip install 'gnflow[mlflow]'`, then remove this.\ntracking: none\n"
        )
    return ""


def _list_commands(experiment: Experiment, file: Path, base: Path | None, workspace: Workspace) -> Iterator[str]:
    """Return three commands that lead from the spec to a comparison."""
    rival = _choose_rival(experiment, base, workspace)
    ours, theirs = (_format_path(workspace.runs / name) for name in (experiment.name, rival.name))
    commands = [
        (f"gnflow plan {_format_path(file)}", "shows the work and the cost"),
        (f"gnflow run {_format_path(file)}", "takes minutes; Ctrl-C stops it, the same command resumes it"),
        (rival.command or "", rival.why),
        (f"gnflow compare {ours} {theirs}", "compares the costs of both"),
    ]
    commands = [(command, why) for command, why in commands if command][-3:]
    width = max(len(command) for command, _ in commands)
    yield "Edit the file, then run"
    yield from (f"  {command:<{width}}  # {why}" for command, why in commands)
    if not workspace.is_project:
        yield f"There is no project here; runs/ and data/ will be in {workspace.root}. `gnflow init` makes a project."


def _wrap_comment(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="#     ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def _choose_rival(experiment: Experiment, base: Path | None, workspace: Workspace) -> Rival:
    """Choose the latest finished run of the same task; else the spec that this one is based on; else a new baseline."""
    if base is not None:
        name = load(base).experiment.name
        command = None if _is_complete(workspace.runs / name) else f"gnflow run {base}"
        return Rival(name, command, "runs the spec that this one is based on")
    for run in sorted(workspace.runs.glob("*"), key=_find_end, reverse=True):
        if run.name != experiment.name and _is_complete(run) and _has_same_task(run / "experiment.yaml", experiment):
            return Rival(run.name)
    kind = "adamw" if experiment.optimizer.kind == "muon" else "muon"
    name = f"{experiment.name}_{kind}"
    return Rival(
        name,
        f"gnflow new {name} --optimizer {kind} && gnflow run {_format_path(_choose_file(name))}",
        "makes a run to compare with",
    )


def _choose_file(name: str) -> Path:
    """Return the file of a new spec: in specs/ if that folder exists, else in the current one."""
    specs = Path.cwd() / "specs"
    return (specs if specs.is_dir() else Path.cwd()) / f"{name}.yaml"


def _is_complete(run: Path) -> bool:
    return read_json(run / "summary.json").get("status") == "complete"


def _find_end(run: Path) -> float:
    try:
        return (run / "summary.json").stat().st_mtime
    except OSError:
        return 0.0


def _has_same_task(spec: Path, experiment: Experiment) -> bool:
    """Return whether a run has the model, data, start and target of this experiment."""
    try:
        there = load(spec).experiment
    except (GnflowError, OSError):
        return False
    return all(getattr(there, part) == getattr(experiment, part) for part in ("model", "data")) and all(
        getattr(there.training, part) == getattr(experiment.training, part) for part in ("rows", "start", "target")
    )


def _format_path(path: Path) -> str:
    """Format a path as the user would type it in the current directory."""
    return os.path.relpath(path)
