"""`gnflow new NAME --study`: write a small study, with two methods on the same task, and say what to do next."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.commands.new import DEFAULT, Refusal, choose_source, require_name, require_optimizer, save_new
from gnflow.errors import DiskProblem
from gnflow.spec.canonical import format_value
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.optimizer import GaussNewton, Optimizer
from gnflow.spec.scaffold import SHAKESPEARE, make_example, write_whole
from gnflow.study.design.load import load
from gnflow.workspace import STUDY, Workspace

TARGETS = [3.8, 3.6]
BUDGET = 5.0e5  # tokens, where no loss is known that runs reach: a minute of training for each run
SEEDS = [1, 2, 3]
TRIALS = 2


def write_study(
    name: str, *, optimizer: str | None = None, against: str | None = None, text: Sequence[str] = ()
) -> int:
    """Write the folder pipelines/NAME with two specs and a study of them, and print the next commands.

    `text` names files of the project to train on.

    Raises Refusal for an invalid name or optimizer, and for an existing folder.
    """
    workspace = Workspace.find(Path.cwd())
    with use_kinds_of(workspace):
        kind = optimizer or DEFAULT
        rival = against or ("adamw" if kind != "adamw" else "muon")
        for each in (kind, rival):
            require_optimizer(each)
        if kind == rival:
            raise Refusal(f"both methods are `{kind}`; name two kinds")
        require_name(name)
        folder = workspace.root / "pipelines" / name
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise Refusal(f"{folder} exists already; choose another name") from None
        except OSError as error:
            raise DiskProblem(f"cannot make {folder}: {error.strerror or error}") from error
        source = choose_source(text)
        arms = [kind, rival]
        lines = []
        for arm in arms:
            experiment = make_example(arm, arm, source)
            save_new(folder / f"{arm}.yaml", f"# One arm of the study {name}.\n" + write_whole(experiment))
            lines += [f"  {arm}:", f"    spec: {arm}.yaml", *_compose_tuning(experiment.optimizer)]
        aim = f"targets: {format_value(list(TARGETS))}" if source == SHAKESPEARE else f"budget: {{tokens: {BUDGET:g}}}"
        content = [
            f"# {name}: say here what you compare, and why. docs/studies.md explains every key.",
            f"name: {name}",
            "arms:",
            *lines,
            f"seeds: {format_value(list(SEEDS))}",
            f"tuning: {{trials: {TRIALS}, seed: 0}}  # trials of each arm, before its runs with the seeds",
            aim,
            f"reference: {arms[-1]}",
        ]
        (folder / STUDY).write_text("\n".join(content) + "\n", encoding="utf-8")
    load(folder)
    place = folder.relative_to(workspace.root)
    print(f"{place}/{STUDY}: {' and '.join(arms)}, {TRIALS} trials and {len(SEEDS)} seeds each")
    print("Edit the files, then run")
    if not workspace.can_reproduce:
        print(f"  gnflow init{' ' * (len(str(place)) + 15)}# makes {workspace.root} a project, which pipelines need")
    print(f"  gnflow study plan {place}        # shows the runs and what they cost at most")
    print(f"  gnflow study pipeline {place}    # writes dvc.yaml, one stage for each run")
    print(f"  dvc repro {place}/dvc.yaml       # runs it all, and writes a report")
    return 0


def _compose_tuning(optimizer: Optimizer) -> list[str]:
    """Return the lines that let trials draw the learning rate from a factor of four about its value."""
    newton = isinstance(optimizer, GaussNewton)
    rate = getattr(optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer, "shown_rate", None)
    if not isinstance(rate, float):
        return []
    key = "optimizer.inner.learning_rate" if newton else "optimizer.learning_rate"
    space: dict[str, object] = {"low": rate / 2, "high": rate * 2, "scale": "log"}
    return ["    tuning:", "      space:", f"        {key}: {format_value(space)}"]
