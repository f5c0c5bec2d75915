"""Write a study as a DVC pipeline with one stage for each run, so that only a changed arm runs again.

The overrides of an arm are part of its own commands, and the values in its files are DVC parameters, so no stage
depends on the study file. Commands run in the project root.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from difflib import unified_diff
from itertools import chain
from pathlib import Path

from gnflow.errors import SpecError
from gnflow.study.design.design import ArmDesign, Design, Job
from gnflow.study.design.tasks import Task, list_tasks
from gnflow.train import disk

FILE, COMPARISON, REPORT, CHARTS = "dvc.yaml", "comparison.json", "report.html", "report_charts"
SCALING = "scaling"
CONTENT = "# content: "
# Every stage begins with this check, since DVC alone only says `exited with 127` if gnflow is not found.
FOUND = (
    "sh -c 'command -v gnflow > /dev/null || { echo \"gnflow is not on the PATH; activate the environment that it is "
    "installed in, as in: source .venv/bin/activate\" >&2; exit 7; }'"
)


def compose(design: Design) -> str:
    """Return the text of the pipeline, which is always the same for the same study."""
    body = "\n".join(chain.from_iterable(_list_stages(design))) + "\n"
    folder = design.make_relative(design.folder)
    return (
        f"# Written by `gnflow study pipeline {folder}` from study.yaml; change that one, and write this again.\n"
        f"vars:\n  - found: >-\n      {FOUND}\n"
        f"{CONTENT}{_compute_digest(body)}\n"
        f"stages:\n{body}"
    )


def write(design: Design) -> Path:
    """Write the pipeline beside the study. Raises SpecError if the file was edited by hand, and DiskProblem."""
    path = design.folder / FILE
    if path.exists() and not _is_as_written(path.read_text()):
        raise SpecError(
            f"{path} was edited by hand or was not written by gnflow, so it is not overwritten\n"
            "move your changes to study.yaml, delete the file, and write it again"
        )
    disk.write(path, compose(design).encode())
    return path


def check(design: Design) -> Path:
    """Raise SpecError, with the first line that differs, unless the file is up to date with the study."""
    path, wanted = design.folder / FILE, compose(design)
    there = path.read_text() if path.exists() else ""
    if there == wanted:
        return path
    write_it = f"run: gnflow study pipeline {design.make_relative(design.folder)}"
    if not there:
        raise SpecError(f"{path} is missing\n{write_it}")
    lines = unified_diff(there.splitlines(), wanted.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if re.match(r"[-+](?![-+])", line) and CONTENT not in line]
    why = "is not what study.yaml says" if _is_as_written(there) else "was edited by hand"
    shown = "\n".join(f"  {line}" for line in changed[:2])
    raise SpecError(f"{path} {why}; first difference (- there, + expected):\n{shown}\n{write_it}")


def _is_as_written(content: str) -> bool:
    """Return whether gnflow wrote the file, from any study, and nobody has edited it."""
    _, mark, rest = content.partition(CONTENT)
    digest, _, after = rest.partition("\n")
    return bool(mark) and after.startswith("stages:\n") and digest == _compute_digest(after.removeprefix("stages:\n"))


def _compute_digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _list_stages(design: Design) -> Iterator[Sequence[str]]:
    for task in list_tasks(design):
        yield _make_choice_stage(design, task) if task.job is None else _make_run_stage(design, task, task.job)
    for scale in design.scales:
        yield from _make_result_stages(design, scale)
    if design.study.scales:
        yield _make_scaling_stage(design)


def _make_result_stages(design: Design, scale: str | None) -> Iterator[Sequence[str]]:
    """Compare the arms at one scale: a comparison and a report, named after the scale if there are several."""
    arms, after = design.select_arms(scale), "" if scale is None else f"_{scale}"
    summaries = [_locate_summary(design, arm, job) for arm in arms for job in arm.runs]
    runs = [design.make_relative(design.locate_run(arm, job)) for arm in arms for job in arm.runs]
    options = [f"--target {target!r}" for target in design.study.list_targets(scale)]
    options += [f"--budget {budget:g}"] if (budget := design.study.find_budget(scale)) else []
    options += [f"--sigma {design.study.sigma:g}"] if design.study.sigma else []
    options += [f"--reference {reference}"] if (reference := design.find_reference(scale)) else []
    comparison, report, charts = (
        design.make_relative(design.folder / _name_file(name, after)) for name in (COMPARISON, REPORT, CHARTS)
    )
    yield _make_stage(
        design, f"compare{after}", ["gnflow compare", *runs, *options, f"--json > {comparison}"],
        deps=summaries, metrics=[comparison], keep="cache: false",
    )  # fmt: skip
    yield _make_stage(
        design, f"report{after}", ["gnflow report", *runs, *options, f"--title {design.study.name}{after} -o {report}"],
        deps=summaries, outs=[report], plots=[charts], keep="cache: false",
    )  # fmt: skip


def _name_file(file: str, after: str) -> str:
    """Return `report_w32.html` for `report.html`, and `report_w32_charts` for `report_charts`."""
    return file if not after else file.replace("report", f"report{after}").replace("comparison", f"comparison{after}")


def _make_scaling_stage(design: Design) -> list[str]:
    folder = design.make_relative(design.folder)
    chart, content = f"{folder}/{SCALING}.svg", f"{folder}/{SCALING}.json"
    return _make_stage(
        design, "scaling", [f"gnflow study scaling {folder} --chart {chart}", f"--json > {content}"],
        deps=[_locate_summary(design, arm, job) for arm in design.arms for job in arm.runs],
        outs=[chart], metrics=[content], keep="cache: false",
    )  # fmt: skip


def _make_run_stage(design: Design, task: Task, job: Job) -> list[str]:
    tuned = job.spec == design.locate_tuned(task.arm)
    return _make_stage(
        design, task.name, task.lines,
        params=[*([design.make_relative(job.spec)] if tuned else []), *map(design.make_relative, task.arm.files)],
        metrics=[_locate_summary(design, task.arm, job)], keep="persist: true",
    )  # fmt: skip


def _make_choice_stage(design: Design, task: Task) -> list[str]:
    arm = task.arm
    return _make_stage(
        design, task.name, task.lines,
        deps=[_locate_summary(design, arm, trial.job) for trial in arm.trials],
        params=[*map(design.make_relative, arm.files)],  # tuned/<arm>.yaml extends the spec by its name
        outs=[design.make_relative(design.locate_tuned(arm))], keep="cache: false",
    )  # fmt: skip


def _locate_summary(design: Design, arm: ArmDesign, job: Job) -> str:
    return f"{design.make_relative(design.locate_run(arm, job))}/summary.json"


def _make_stage(
    design: Design,
    name: str,
    command: Sequence[str],
    *,
    keep: str,
    deps: Sequence[str] = (),
    params: Sequence[str] = (),
    outs: Sequence[str] = (),
    metrics: Sequence[str] = (),
    plots: Sequence[str] = (),
) -> list[str]:
    root = os.path.relpath(design.workspace.root, design.folder)
    lines = [
        f"  {name}:",
        f"    wdir: {root}",
        "    cmd: >-",
        "      ${found} &&",
        *(f"      {part}" for part in command),
    ]
    for key, paths, after in (("deps", deps, ""), ("params", params, ":"), *_list_outputs(outs, metrics, plots)):
        if paths:
            lines.append(f"    {key}:")
        for path in paths:
            lines.append(f"      - {path}{after}")
            if key not in ("deps", "params"):
                lines.append(f"          {keep}")
    return lines


def _list_outputs(
    outs: Sequence[str], metrics: Sequence[str], plots: Sequence[str]
) -> tuple[tuple[str, Sequence[str], str], ...]:
    return ("outs", outs, ":"), ("metrics", metrics, ":"), ("plots", plots, ":")
