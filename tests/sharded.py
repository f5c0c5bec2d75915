"""A prototype of weights that are sharded over processes: no process ever has more than one stage of the model whole.

`gather` stands outside of `jvp` and `vjp`, whose tangents would not pass through it. The reverse pass gathers a stage
again and scatters its slope at once.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from crew_work import small
from crews import Crews
from torch import Tensor
from torch.nn.functional import pad

from gnflow.compiler import build
from gnflow.crew import Crew
from gnflow.curvature.linearised import expand_quadratic
from gnflow.models.loss import Targets
from gnflow.models.model import Stage
from gnflow.objective import Params, Scalar

X = "x"


class Shards:
    """One piece of every weight for each process, and the shapes of the whole ones."""

    def __init__(self, crew: Crew, shapes: dict[str, torch.Size]) -> None:
        self.crew, self.shapes = crew, shapes

    def cut(self, tree: Params) -> Params:
        """Our piece of each tensor."""
        return {name: self._rows(tensor)[self.crew.rank].clone() for name, tensor in tree.items()}

    def gather(self, pieces: Params, stage: Stage) -> Params:
        """The whole weights that a stage reads."""
        whole = {}
        for name in stage.reads:
            found = [torch.empty_like(pieces[name]) for _ in range(self.crew.size)]
            dist.all_gather(found, pieces[name])
            whole[name] = torch.cat(found)[: self.shapes[name].numel()].view(self.shapes[name])
        return whole

    def scatter(self, slopes: Params) -> Params:
        """Our piece of the mean of each slope over the processes."""
        mine = {}
        for name, slope in slopes.items():
            sent = self._rows(slope).contiguous()
            received = torch.empty_like(sent)
            dist.all_to_all_single(received, sent)
            mine[name] = received.sum(0) / self.crew.size
        return mine

    def _rows(self, tensor: Tensor) -> Tensor:
        length = -(-tensor.numel() // self.crew.size)
        return pad(tensor.flatten(), (0, length * self.crew.size - tensor.numel())).view(self.crew.size, length)


def compute_curved(
    stages: Sequence[Stage], shards: Shards, anchor: Params, move: Params, inputs: Tensor, targets: Targets
) -> tuple[Params, Scalar]:
    """Our pieces of the gradient of the convex model, and its value on our micro-batch."""
    x, tangent, seen = inputs, None, []
    for stage in stages:
        seen.append(x)
        point, pushed = {**shards.gather(anchor, stage), X: x}, shards.gather(move, stage)
        if tangent is not None:
            pushed[X] = tangent
        x, tangent = torch.func.jvp(run(stage, point), ({name: point[name] for name in pushed},), (pushed,))
    assert tangent is not None
    value, cotangent = expand_quadratic(x, tangent, targets)
    gradient: Params = {}
    for place, stage in reversed(list(enumerate(stages))):
        point = {**shards.gather(anchor, stage), X: seen[place]}
        wanted = [*stage.reads, *([X] if place else [])]
        _, back = torch.func.vjp(run(stage, point), {name: point[name] for name in wanted})
        (slope,) = back(cotangent)
        cotangent = slope.pop(X, cotangent)
        gradient |= shards.scatter(slope)
    return gradient, value


def run(stage: Stage, point: Params) -> Callable[[Params], Tensor]:
    return lambda part: stage.run({**point, **part}, {**point, **part}[X])


def work() -> Callable[[Crews], dict[str, float]]:
    """How far the sharded gradient is from the mean of the whole ones, and how much of the weights a process holds."""
    network = build.build_model(small({"kind": "adamw"}), "plain")
    anchor = {name: weight.double() for name, weight in network.init(0, torch.device("cpu")).items()}
    drawn = torch.Generator().manual_seed(0)
    params = {name: w + 0.01 * torch.randn(w.shape, generator=drawn, dtype=w.dtype) for name, w in anchor.items()}
    batch = torch.randint(256, (2, 3, 9), generator=drawn)
    whole = build.build_exact(network).curved

    def compare(crews: Crews) -> dict[str, float]:
        crew = crews(2)
        shards = Shards(crew, {name: weight.shape for name, weight in anchor.items()})
        move = {name: params[name] - weight for name, weight in anchor.items()}
        pieces = shards.cut(anchor)
        found, value = compute_curved(
            (*network.layers, network.head), shards, pieces, shards.cut(move), *network.split(batch[crew.rank])
        )
        each = [whole(params, anchor, tokens) for tokens in batch]
        wanted = shards.cut({name: (each[0][0][name] + each[1][0][name]) / 2 for name in anchor})
        worst = max((found[name] - wanted[name]).abs().max().item() for name in wanted)
        size = max(tensor.abs().max().item() for tensor in wanted.values())
        held = sum(piece.numel() for piece in pieces.values()) / sum(weight.numel() for weight in anchor.values())
        return {"error": worst / size, "value": abs(value - each[crew.rank][1]).item(), "held": held}

    return compare
