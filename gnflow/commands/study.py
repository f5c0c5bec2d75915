"""`gnflow study`: show the cost of a study, write its pipeline, choose among trials, and take one of its runs."""

import json as json_text
from collections.abc import Sequence
from pathlib import Path

from gnflow.errors import Diverged
from gnflow.study.design.load import load


def plan_study(folder: Path, *, json: bool) -> int:
    """Print the cost of every arm, as a table or as JSON."""
    design = load(folder)
    # torch takes seconds to import, so a bad study is refused before.
    from gnflow.study import figures, tables
    from gnflow.study.design.cost import add_costs, estimate_costs, list_remarks

    rows = estimate_costs(design)
    everything, said = add_costs(rows), list_remarks(design)
    if json:
        tree = {
            "study": design.study.name,
            "arms": [row._asdict() for row in rows],
            "total": everything._asdict(),
            "warnings": said,
        }
        print(json_text.dumps(tree, indent=2))
        return 0
    columns = ("arm", "trials", "seeds", "done", "steps", "tokens", "FLOPs", "time")
    table = tables.Table(f"{design.study.name}, at most", columns, words=1)
    for row in (*rows, everything):
        done = f"{row.done}/{row.trials + row.runs}"
        counts = (figures.format_count(row.steps), figures.format_count(row.tokens), figures.format_count(row.flops))
        table.add_row(row.arm, str(row.trials), str(row.runs), done, *counts, figures.format_duration(row.seconds))
    console = tables.make_console()
    console.print(table)
    if everything.seconds is None:
        console.print("The time is unknown until a run of about this size has finished in this project.")
    for sentence in said:
        console.print(f"warning: {sentence}")
    if not design.workspace.can_reproduce:
        root = design.workspace.root
        console.print(f"The pipeline needs a Git and DVC repository, which {root} is not yet: run `gnflow init` there.")
    return 0


def write_pipeline(folder: Path, *, check: bool) -> int:
    """Write dvc.yaml beside the study, or check that it is up to date."""
    from gnflow.study.design import pipeline

    design = load(folder)
    path = pipeline.check(design) if check else pipeline.write(design)
    jobs = sum(len(arm.jobs) for arm in design.arms)
    print(f"{path}: {'up to date' if check else 'written'}, {jobs} runs")
    if not check:
        print(f"next: {design.format_repro(design.make_relative(path))}")
    return 0


def choose_values(folder: Path, arm: str) -> int:
    """Write tuned/<arm>.yaml and print the trials."""
    from gnflow.study.design import choice

    design = load(folder)
    chosen = choice.choose(design, design.find_arm(arm))
    path = choice.write(design, design.find_arm(arm), chosen)
    print("\n".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#")))
    print(path)
    return 0


def widen(folder: Path, arms: Sequence[str], *, trials: int | None) -> int:
    """Add trials beyond every range whose best value lies at its edge, record them, and write the pipeline."""
    from gnflow.study.design import pipeline, widening

    design = load(folder)
    names = arms or [arm.name for arm in design.arms if arm.trials]
    found = widening.widen(design, [design.find_arm(name) for name in names], trials)
    for outcome in found:
        for sentence in outcome.sentences:
            print(sentence)
    if not any(outcome.added for outcome in found):
        return 0
    path = pipeline.write(load(folder))
    print(f"next: {design.format_repro(design.make_relative(path))}")
    return 0


def run_job(spec: Path, *, sets: Sequence[str], run_dir: Path | None) -> int:
    """Take one run of a study. If it diverges, this is a result: it is printed, and the pipeline continues."""
    from gnflow.commands.run import run as train

    try:
        return train(spec, sets=sets, run_dir=run_dir, supersede=True)
    except Diverged as end:
        print(end)
        return 0
