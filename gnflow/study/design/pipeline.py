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
from shlex import quote

from gnflow.errors import SpecError
from gnflow.study.design.design import ArmDesign, Design, Job
from gnflow.train import disk

FILE, COMPARISON, REPORT, CHARTS = "dvc.yaml", "comparison.json", "report.html", "report_charts"
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
    for arm in design.arms:
        for trial in arm.trials:
            yield _make_run_stage(design, arm, trial.job, f"trial_{arm.name}_{trial.job.label.removeprefix('trial_')}")
        if arm.trials:
            yield _make_choice_stage(design, arm)
        for job in arm.runs:
            yield _make_run_stage(design, arm, job, f"run_{arm.name}_{job.label}")
    summaries = [_locate_summary(design, arm, job) for arm in design.arms for job in arm.runs]
    folder = design.make_relative(design.folder)
    runs = [design.make_relative(design.locate_run(arm, job)) for arm in design.arms for job in arm.runs]
    options = [f"--target {target!r}" for target in design.study.targets]
    options += [f"--reference {design.study.reference}"] if design.study.reference else []
    yield _make_stage(
        design, "compare", ["gnflow compare", *runs, *options, f"--json > {folder}/{COMPARISON}"],
        deps=summaries, metrics=[f"{folder}/{COMPARISON}"], keep="cache: false",
    )  # fmt: skip
    yield _make_stage(
        design, "report", ["gnflow report", *runs, *options, f"--title {design.study.name} -o {folder}/{REPORT}"],
        deps=summaries, outs=[f"{folder}/{REPORT}"], plots=[f"{folder}/{CHARTS}"], keep="cache: false",
    )  # fmt: skip


def _make_run_stage(design: Design, arm: ArmDesign, job: Job, name: str) -> list[str]:
    directory = design.make_relative(design.locate_run(arm, job))
    sets = [f"--set {quote(text)}" for text in job.sets]
    tuned = job.spec == design.locate_tuned(arm)
    return _make_stage(
        design, name, [f"gnflow study run {design.make_relative(job.spec)}", *sets, f"--run-dir {directory}"],
        params=[*([design.make_relative(job.spec)] if tuned else []), *map(design.make_relative, arm.files)],
        metrics=[f"{directory}/summary.json"], keep="persist: true",
    )  # fmt: skip


def _make_choice_stage(design: Design, arm: ArmDesign) -> list[str]:
    return _make_stage(
        design, f"choose_{arm.name}", [f"gnflow study choose {design.make_relative(design.folder)} {arm.name}"],
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
