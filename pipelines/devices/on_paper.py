"""Writes the table of several devices in docs/devices.md, with what `gnflow plan` predicts for them.

    python pipelines/devices/on_paper.py            all models
    python pipelines/devices/on_paper.py 45M 1B     these

RATE and BANDWIDTH are assumptions, not measurements. The last row of a model is arithmetic about a way to share that
is not built: every device keeps a part of the parameters, and a stage is gathered before it is computed.
"""

import sys
from collections.abc import Collection
from math import ceil
from pathlib import Path
from typing import NamedTuple

from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.scaling import predict
from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "devices.md"
BEGIN, END = "<!-- on paper -->", "<!-- end of on paper -->"
RATE, BANDWIDTH = 200e12, 300e9
SIZES = (8, 64, 512)


class Scale(NamedTuple):
    """A model, and the rows of one of its inner steps."""

    name: str
    layers: int
    width: int
    heads: int
    rows: int
    steps: int


SCALES = (
    Scale("45M", 4, 512, 8, 32, 122),
    Scale("150M", 12, 768, 16, 128, 1831),
    Scale("1B", 22, 2048, 16, 512, 512),
    Scale("8B", 36, 4096, 32, 512, 512),
)
LEVELS = {
    "micro-batches shared": {},
    "and updates by parts": {"compile": {"update": "parts"}},
    "layerwise, blocks shared": {"optimizer": {"blocks": "layer"}, "compile": {"update": "parts"}},
}


def make_experiment(scale: Scale, level: dict[str, dict[str, object]]) -> Experiment:
    """Return the paper's spec at this scale, with one row in a micro-batch."""
    tree = load(ROOT / "specs/paper/full_gn_45m.yaml").experiment.model_dump(mode="json")
    tree["model"] |= {"layers": scale.layers, "width": scale.width, "heads": scale.heads}
    tree["optimizer"] |= {"inner_steps": scale.steps, "schedule": "constant", **level.get("optimizer", {})}
    tree["optimizer"]["inner"]["microbatches"] = scale.rows
    tree["optimizer"]["search"]["microbatches"] = scale.steps * scale.rows
    tree["training"] |= {"rows": 1, "shares": max(SIZES), "steps": 10, "device": "cpu", "target": None}
    tree["compile"] = level.get("compile", {})
    return Experiment.model_validate(tree | {"metrics": []})


def describe(planned: Plan, size: int) -> str:
    """Return what a device needs: memory, messages of a step, efficiency."""
    try:
        found = predict(planned, size, RATE, BANDWIDTH)
    except SpecError:
        return "no use"
    return f"{sum(found.memory.values()) / 1e9:,.1f} GB, {found.sent / 1e9:,.0f} GB, {found.efficiency:.0%}"


def describe_sharded(planned: Plan, size: int) -> str:
    """Return what a device would need if parameters, states and copies were cut into equal parts.

    A micro-batch of `curved` gathers the parameters twice and their displacement once, and sends back one gradient.
    One of a loss gathers the parameters, and one of a convex model's value the displacement too.
    """
    count = planned.cost.solve // planned.experiment.optimizer.inner_steps
    if count < size:
        return "no use"
    memory = dict(planned.memory)
    kept = memory.pop("activations") + memory.pop("batch")
    gathers = {"curved": 4, "curved_value": 2, "value": 1}
    passes = sum(gathers.get(name, 0) * ceil(calls / size) for name, calls in planned.calls.items())
    sent = passes * planned.memory["parameters"] * (size - 1) / size
    alone = planned.flops / size / RATE
    efficiency = alone / (alone + sent / BANDWIDTH)
    return f"{(sum(memory.values()) / size + kept) / 1e9:,.1f} GB, {sent / 1e9:,.0f} GB, {efficiency:.0%}"


def make_table(names: Collection[str]) -> str:
    """Return the rows of Markdown for the scales of these names."""
    lines = [f"| model | what is shared | 1 device | {' | '.join(f'{size} devices' for size in SIZES)} | limit |"]
    lines.append("|---" * (len(SIZES) + 4) + "|")
    for scale in [scale for scale in SCALES if scale.name in names]:
        planned = plan(make_experiment(scale, {}))
        sharded = [describe_sharded(planned, size) for size in SIZES]
        for name, level in LEVELS.items():
            planned = planned if not level else plan(make_experiment(scale, level))
            alone = f"{sum(planned.memory.values()) / 1e9:,.1f} GB"
            cells = [describe(planned, size) for size in SIZES]
            most = max((size for size, cell in zip(SIZES, cells, strict=True) if cell != "no use"), default=1)
            limit = predict(planned, most, RATE, BANDWIDTH).limit if most > 1 else ""
            lines.append(f"| {scale.name} | {name} | {alone} | {' | '.join(cells)} | {limit} |")
            print(lines[-1], flush=True)
        lines.append(f"| {scale.name} | parameters sharded (not built) | | {' | '.join(sharded)} | messages |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Replace the table in the document."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(
        f"{before}{BEGIN}\n{make_table(sys.argv[1:] or [scale.name for scale in SCALES])}\n{END}{after}"
    )


if __name__ == "__main__":
    main()
