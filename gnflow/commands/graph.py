"""`gnflow graph SPEC`: compile the regions of a spec and show what became of each."""

import json as encoder
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gnflow.compiler import toolchain
from gnflow.errors import EnvironmentProblem
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load
from gnflow.spec.optimizer import GaussNewton, InnerMethod
from gnflow.study import tables

if TYPE_CHECKING:
    from gnflow.compiler.program import Program

FEW, TOKENS = 2, 2048  # the fewest micro-batches and rows, and the most tokens of several rows


def graph(spec: Path, *, sets: Sequence[str] = (), json: bool) -> int:
    """Print the nodes, the kernels and the seconds of every compiled region, and where its graph breaks.

    The regions are compiled by one step with one inner step, few micro-batches and few rows, on random ids. They are
    not taken from the cache of compiled graphs, so the seconds are those of a first run; sizes may change them a
    little. Raises SpecError for a bad spec and EnvironmentProblem for a spec or a machine that compiles nothing.
    Return 0.
    """
    loaded = load(spec, sets)
    experiment = loaded.experiment
    if experiment.compile.mode == "off":
        raise EnvironmentProblem(f"{experiment.name} compiles nothing: compile.mode is off")
    # torch takes seconds to import, so a bad spec is refused before.
    from torch._dynamo.exc import Unsupported
    from torch._inductor.utils import fresh_cache

    toolchain.settle(loaded.workspace)
    with fresh_cache():
        try:
            program = _compile(_shorten(experiment))
        except Unsupported:
            lenient = experiment.compile.model_copy(update={"max_graph_breaks": sys.maxsize})
            program = _compile(_shorten(experiment.model_copy(update={"compile": lenient})))
    assert program.compiler is not None
    regions = program.compiler.regions
    if json:
        rows = [
            {"region": r.name, "nodes": r.graphs, "kernels": r.kernels, "seconds": r.seconds, "breaks": r.breaks}
            for r in regions
        ]
        print(encoder.dumps({"seconds": program.sum_compile_seconds(), "regions": rows}, indent=2))
        return 0
    console = tables.make_console()
    columns = ("region", "graphs", "nodes", "kernels", "seconds of compilation")
    table = tables.Table("compiled regions", columns, words=1)
    for region in regions:
        figures = (len(region.graphs), sum(region.graphs), region.kernels)
        table.add_row(region.name, *(f"{figure:,}" for figure in figures), f"{region.seconds:.1f}")
    console.print(table)
    console.print(f"{program.sum_compile_seconds():.1f} seconds in all, with nothing cached")
    for region in regions:
        for place in region.breaks:
            console.print(f"`{region.name}` breaks: {place}", soft_wrap=True)
    return 0


def _compile(experiment: Experiment) -> "Program":
    """Take one step on random ids. Raises EnvironmentProblem if nothing can be compiled on this machine."""
    from gnflow.compiler.plan import plan
    from gnflow.compiler.program import compile as make_program
    from gnflow.verify.subject import draw_text

    planned = plan(experiment)
    # The plan is that of all rows: with few of them, no block would be recomputed.
    program = make_program(replace(planned, experiment=_take_few_rows(experiment)))
    if program.compiler is None:
        lack = toolchain.find_problem(program.plan.device)
        raise EnvironmentProblem(f"{experiment.name} compiles nothing on this machine: {lack}")
    program.step(program.init(), draw_text(program.plan.experiment, planned.microbatches, 0))
    return program


def _shorten(experiment: Experiment) -> Experiment:
    """Give a step few calls of each region. Shapes stay."""
    method = experiment.optimizer
    if not isinstance(method, GaussNewton):
        return experiment.model_copy(update={"optimizer": _take_few_microbatches(method)})
    few: dict[str, object] = {"inner_steps": 1, "inner": _take_few_microbatches(method.inner)}
    if hasattr(method.search, "microbatches"):
        few["search"] = method.search.model_copy(update={"microbatches": 1})
    return experiment.model_copy(update={"optimizer": method.model_copy(update=few)})


def _take_few_microbatches(method: InnerMethod) -> InnerMethod:
    """Return the method with as few micro-batches as it works with. Methods with leaves need one for each."""
    least = max(FEW, getattr(method, "leaves", FEW))
    return method.model_copy(update={"microbatches": min(method.microbatches, least)})


def _take_few_rows(experiment: Experiment) -> Experiment:
    """Return the experiment with few rows in a micro-batch, but in pieces if all rows are."""
    from gnflow.compiler.build import count_pieces

    rows = max(FEW, TOKENS // experiment.data.context)
    small = _set_rows(experiment, rows)
    while count_pieces(small) == 1 < count_pieces(experiment):
        rows *= 2
        small = _set_rows(experiment, rows)
    return small


def _set_rows(experiment: Experiment, most: int) -> Experiment:
    training = experiment.training
    return experiment.model_copy(update={"training": training.model_copy(update={"rows": min(training.rows, most)})})
