"""Measure how good the directions of several methods are, against Gauss-Newton steps, at the weights of a moment.

    efficiency of d on a batch  =  <g, d>^2 / <d, (G + l) d> / <g, (G + l)^-1 g>,   0 if <g, d> < 0

g is the mean gradient of the batch and G its generalised Gauss-Newton matrix; l is the damping of each weight matrix, a
fraction of the mean of its diagonal of G. By Cauchy-Schwarz the efficiency lies in [0, 1], and it does not depend on
the length of d: it is the decrease of <g, x> + <x, (G + l) x> / 2 along d with the best length, as a part of the
decrease at its minimum. Exact solutions that stop early make it too large, with a residual of 0.05 by about 0.4 %.

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
evaluation it is no part of a step's passes, tokens, FLOPs or seconds. While a batch is judged, the activations of all
its micro-batches are in memory, those of the reverse pass included.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from gnflow import trees
from gnflow.errors import SpecError
from gnflow.metrics.candidates import Trial, start_trials
from gnflow.metrics.judges import Judge
from gnflow.metrics.protocol import Metric, Moment, Subject
from gnflow.models.model import Model
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.means import average_diagonal, average_gradient
from gnflow.optim.observation import draw_noise
from gnflow.spec.preconditioners import Preconditioners

STREAM = "preconditioners"
"""The stream that the micro-batches come from. Steps take theirs from another one."""


def build_preconditioners(spec: Preconditioners, subject: Subject) -> Metric:
    """Build the metric, which measures eagerly and in full precision. Raises SpecError if no matrix can be judged."""
    network, training = subject.network, subject.experiment.training
    names = [name for name in network.moving if name in network.hidden & network.linears]
    if not names:
        raise SpecError(
            "metric preconditioners looks at matrices of linear layers in the blocks, and this model has none that it "
            "declares as such and that moves; remove the metric"
        )
    blocks = {block: [n for n in own if n in names] for block, own in network.blocks.items()}
    blocks = {block: own for block, own in blocks.items() if own}
    probe = Efficiencies(spec, subject.plain(), subject.exact(), blocks, training.seed, training.rows)
    return Metric(probe.measure, every=spec.every)


class Efficiencies:
    """The measurements of one run. `blocks` has the matrices of each block of the model."""

    def __init__(
        self,
        spec: Preconditioners,
        network: Model,
        loss: Objective,
        blocks: Mapping[str, list[str]],
        seed: int,
        rows: int,
    ) -> None:
        self.spec, self.network, self.loss = spec, network, loss
        self.blocks, self.seed, self.rows = blocks, seed, rows
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
        other = average_gradient(self.loss, at.params, fresh)[0]
        diagonal = average_diagonal(self.loss.build_model(at.params), same, self._draw(at, same, -1))
        damping = {name: self.spec.damping * diagonal[name].mean() for name in self.names}
        judges = {
            name: Judge(self.network, self.loss, at.params, batch, slope, damping, self._draw(at, batch, number))
            for name, batch, slope, number in (("same", same, gradient, -1), ("fresh", fresh, other, -2))
        }
        residuals: list[Tensor] = []

        def solve(judge: str, groups: Iterable[list[str]]) -> Params:
            """Return the exact solutions with the block of each group by itself."""
            found: Params = {}
            for names in groups:
                solution = judges[judge].solve(names, self.spec.iterations, self.spec.tolerance)
                found |= solution.direction
                residuals.append(solution.residual)
            return trees.pick(found, self.names)

        apart = {judge: solve(judge, [[name] for name in self.names]) for judge in judges}
        full = {judge: solve(judge, [self.names]) for judge in judges}
        directions = {
            "gradient": gradient,
            "oracle": apart["same"],
            "oracle_layer": solve("same", self.blocks.values()),
            "oracle_full": full["same"],
            **{trial.name: trial.direction for trial in trials},
        }
        found: Metrics = {f"preconditioners/residual/{size}": torch.stack(residuals).max()}
        for judge, each in judges.items():
            rated = {n: each.rate(directions.values(), {n: apart[judge][n]}) for n in self.names}
            joint = each.rate(directions.values(), full[judge])
            for index, name in enumerate(directions):
                column = f"preconditioners/{name}/{judge}/{size}"
                own = {n: values[index] for n, values in rated.items()}
                found |= {column + suffix: value for suffix, value in self._summarise(own)}
                found[f"{column}/joint"] = joint[index]
        return found

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
