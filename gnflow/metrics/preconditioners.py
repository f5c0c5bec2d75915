"""Measure how good the directions of several methods are, against Gauss-Newton steps, at the weights of a moment.

    efficiency of d on a batch  =  <g, d>^2 / <d, (G + l) d> / <g, (G + l)^-1 g>,   0 if <g, d> < 0

g is the mean gradient of the batch and G its generalised Gauss-Newton matrix; l is the damping of each weight matrix, a
fraction of the mean of its diagonal of G. By Cauchy-Schwarz the efficiency lies in [0, 1], and it does not depend on
the length of d: it is the decrease of <g, x> + <x, (G + l) x> / 2 along d with the best length, as a part of the
decrease at its minimum. Exact solutions that stop early make it too large, by about the square of their residual.

    preconditioners/<direction>/<judge>/<batch>
                         mean over the matrices of linear layers in the blocks, each with its own block of G
    .../blocks.0         mean over the matrices of one block of the model
    .../attention.query  mean over the matrices of one kind
    .../joint            all these matrices together, with all of G
    preconditioners/residual/<batch>
                         largest residual of the exact solutions, over |g|

<batch> is the number of micro-batches. A direction is taken on one batch and judged on the same one (`same`) and on
another (`fresh`). A method's statistics are fed with further batches first, each as one update without a movement of
the weights; the direction is that of the next update. Without momentum and weight decay only statistics remain. Other
directions are the `gradient`, and the exact solutions for single matrices (`oracle`), for the matrices of each block of
the model together (`oracle_layer`), and for all of them (`oracle_full`).

The micro-batches are of training data, in an order of their own. All is computed eagerly in full precision. Like
evaluation it is no part of a step's passes, tokens, FLOPs or seconds.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.conjugate_gradients import solve
from gnflow.metrics.candidates import Trial, start_trials
from gnflow.metrics.protocol import Metric, Moment, Subject
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.means import average_diagonal, average_gradient, average_product, keep_positive
from gnflow.optim.observation import draw_noise
from gnflow.spec.preconditioners import Preconditioners

STREAM = "preconditioners"
"""The stream that the micro-batches come from. Steps take theirs from another one."""


def build_preconditioners(spec: Preconditioners, subject: Subject) -> Metric:
    """Build the metric, which measures eagerly and in full precision."""
    network, training = subject.network, subject.experiment.training
    names = [name for name in network.moving if name in network.hidden & network.linears]
    blocks = {block: [n for n in own if n in names] for block, own in network.blocks.items()}
    probe = Efficiencies(
        spec, subject.exact(), {block: own for block, own in blocks.items() if own}, training.seed, training.rows
    )
    return Metric(probe.measure, every=spec.every)


class Judge(NamedTuple):
    """A batch with its gradient, and the damping of each matrix."""

    gradient: Params
    multiply: Callable[[Params], Params]
    """direction of some matrices -> its product with their blocks of G + l."""

    def solve(self, names: list[str], iterations: int, tolerance: float) -> tuple[Params, Tensor]:
        """Return ((G + l)^-1 g in the blocks of these matrices, residual over |g|)."""
        return solve(self.multiply, trees.pick(self.gradient, names), 0.0, iterations, tolerance)

    def rate(self, direction: Params, best: Params) -> Tensor:
        """Return the efficiency of a direction of some matrices. `best` is their exact solution."""
        slope = trees.dot(trees.pick(self.gradient, direction), direction).clamp(min=0)
        bend = keep_positive(trees.dot(direction, self.multiply(direction)))
        return slope**2 / bend / keep_positive(trees.dot(trees.pick(self.gradient, best), best))


class Efficiencies:
    """The measurements of one run. `blocks` has the matrices of each block of the model."""

    def __init__(
        self, spec: Preconditioners, loss: Objective, blocks: Mapping[str, list[str]], seed: int, rows: int
    ) -> None:
        self.spec, self.loss, self.blocks, self.seed, self.rows = spec, loss, blocks, seed, rows
        self.names = [name for own in blocks.values() for name in own]

    def measure(self, at: Moment) -> Metrics:
        """Measure all columns."""
        found: Metrics = {}
        for size in self.spec.batches:
            batches = self._take(at, size)
            trials = start_trials(self.spec.of, trees.pick(at.params, self.names))
            for number, batch in enumerate(batches[:-2]):
                self._feed(trials, at, batch, number)
            found |= self._judge_all(trials, at, batches[-2], batches[-1], size)
        return found

    def _take(self, at: Moment, size: int) -> list[Tensor]:
        """Take the batches of a measurement: from the data of the run, or else those that the moment has."""
        count = (self.spec.feeds + 2) * size
        if at.dataset is None:
            drawn = at.batch[:count]
        else:
            stream = at.dataset.make_microbatches(self.rows, self.seed, STREAM)
            drawn = stream.take(at.step * count, count).to(next(iter(at.params.values())).device)
        return list(torch.split(drawn, size))

    def _draw(self, at: Moment, batch: Tensor, number: int) -> Callable[[int], Tensor]:
        return lambda index: draw_noise(batch[index], f"{STREAM}/{self.seed}/{at.step}/{number}/{index}")

    def _feed(self, trials: list[Trial], at: Moment, batch: Tensor, number: int) -> Params:
        """Give every method one update on a batch and return the gradient. The directions are kept in the trials."""
        gradient = trees.pick(average_gradient(self.loss, at.params, batch)[0], self.names)
        draw = self._draw(at, batch, number)
        for trial in trials:
            trial.advance(self.loss, at.params, gradient, batch, draw)
        return gradient

    def _judge_all(self, trials: list[Trial], at: Moment, same: Tensor, fresh: Tensor, size: int) -> Metrics:
        gradient = self._feed(trials, at, same, self.spec.feeds)
        diagonal = average_diagonal(self.loss.build_model(at.params), same, self._draw(at, same, -1))
        damping = {name: self.spec.damping * diagonal[name].mean() for name in self.names}
        judges = {
            "same": self._make_judge(at.params, same, gradient, damping),
            "fresh": self._make_judge(
                at.params, fresh, average_gradient(self.loss, at.params, fresh)[0], damping
            ),
        }  # fmt: skip
        solved = {judge: self._solve_apart(each, [[name] for name in self.names]) for judge, each in judges.items()}
        layered = self._solve_apart(judges["same"], list(self.blocks.values()))
        full = {judge: self._solve_apart(each, [self.names]) for judge, each in judges.items()}
        directions = {
            "gradient": gradient,
            "oracle": solved["same"][0],
            "oracle_layer": layered[0],
            "oracle_full": full["same"][0],
            **{trial.name: trial.direction for trial in trials},
        }
        residuals = [*(r for _, each in (*solved.values(), layered, *full.values()) for r in each)]
        found: Metrics = {f"preconditioners/residual/{size}": torch.stack(residuals).max()}
        for judge, each in judges.items():
            for name, direction in directions.items():
                column = f"preconditioners/{name}/{judge}/{size}"
                apart = {
                    n: each.rate({n: direction[n]}, trees.pick(solved[judge][0], [n])) for n in self.names
                }  # fmt: skip
                found |= {column + suffix: value for suffix, value in self._summarise(apart)}
                found[f"{column}/joint"] = each.rate(direction, full[judge][0])
        return found

    def _make_judge(self, params: Params, batch: Tensor, gradient: Params, damping: Mapping[str, Tensor]) -> Judge:
        model = self.loss.build_model(params)

        def multiply(direction: Params) -> Params:
            image = average_product(model, direction, batch)
            return {name: image[name] + damping[name] * d for name, d in direction.items()}

        return Judge(trees.pick(gradient, self.names), multiply)

    def _solve_apart(self, judge: Judge, groups: list[list[str]]) -> tuple[Params, list[Tensor]]:
        """Return (exact solutions with the block of each group by itself, their residuals)."""
        solutions: Params = {}
        residuals = []
        for names in groups:
            solution, residual = judge.solve(names, self.spec.iterations, self.spec.tolerance)
            solutions |= solution
            residuals.append(residual)
        return trees.pick(solutions, self.names), residuals

    def _summarise(self, apart: Metrics) -> Iterator[tuple[str, Tensor]]:
        """Yield the means over all matrices, over those of each block, and over those of each kind, with suffixes."""
        yield "", torch.stack(list(apart.values())).mean()
        kinds: dict[str, list[Tensor]] = {}
        for block, names in self.blocks.items():
            yield f"/{block}", torch.stack([apart[name] for name in names]).mean()
            for name in names:
                kinds.setdefault(name.removeprefix(f"{block}.").removesuffix(".weight"), []).append(apart[name])
        for kind, values in kinds.items():
            yield f"/{kind}", torch.stack(values).mean()
