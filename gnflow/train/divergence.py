"""Which micro-batch, and which rows of it, made a loss non-finite."""

import math

from torch import Tensor

from gnflow.compiler.program import Program
from gnflow.data.batches import Batches
from gnflow.data.multimodal.mixture import MixedBatches
from gnflow.objective import Params


def cause(program: Program, params: Params, batches: Batches | MixedBatches, first: int, count: int) -> str:
    """Looks at micro-batches first ... first + count - 1, one by one, at the weights before the step."""
    largest, where = -math.inf, first
    for number in range(first, first + count):
        tokens = batches.take(number, 1)[0].to(program.device)
        loss = program.objective.value(params, tokens).item()
        if not math.isfinite(loss):
            places = _rows(program, params, tokens)
            rows = batches.row_numbers(number, 1)[0]
            named = ", ".join(str(rows[place]) for place in places)
            return (
                f"micro-batch {number} has loss {loss} already at the weights before the step, "
                f"in its rows {', '.join(map(str, places))} (rows {named} of the training text)"
            )
        if loss > largest:
            largest, where = loss, number
    return (
        f"micro-batches {first} to {first + count - 1} all have a finite loss at the weights before the step "
        f"(largest: {largest:.4g}, micro-batch {where}), so it is the update that went too far; "
        "a lower learning rate or `clip` may help"
    )


def _rows(program: Program, params: Params, tokens: Tensor) -> list[int]:
    """Rows whose own loss is not finite; each fills a micro-batch of the usual shape, so nothing is compiled anew."""
    alone = [row.expand_as(tokens).contiguous() for row in tokens]
    bad = [i for i, rows in enumerate(alone) if not math.isfinite(program.objective.value(params, rows).item())]
    return bad or list(range(len(tokens)))
