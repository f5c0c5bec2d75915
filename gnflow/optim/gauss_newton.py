"""Gauss-Newton: runs any optimizer on the convex model of the loss around the iterate, then searches on the true loss.

    point <- inner optimizer on Q( . ; anchor), with fresh micro-batches at every inner step;
             layerwise: block by block, each with the other blocks at the anchor, all on the same micro-batches
    goal <- a mean of the inner iterates (see `averages`): the last one, a last part of them, or a fading mean
    anchor <- anchor + alpha (goal - anchor)
    the next solve starts from `point`, as it was before the search, with the same inner state or a new one;
    with `carry` it starts from the new anchor + carry (point - anchor)

With `checks` the true loss is measured at some of the inner iterates, on the micro-batches of the search. The solve
ends at the first check without improvement, and goes back to the best iterate and the state that belongs to it.

With `damping` the model has a further term, which is adapted after every step (see `optim.damping`).

Source:   Abreu et al. 2025, arXiv:2510.09378; Martens 2010 (damping and its rule, decayed start)
Code:     github.com/natalieabreu/full-gauss-newton llama_train_gn.py, llama_train_gn_layerwise.py @ 0c14e7e;
          github.com/gmbabreu/full-gauss-newton (checks)
Differs:  a search without any improvement refuses the step, and the next solve then starts from the anchor; the
          reference always takes the best trial. Means of the iterates are ours. The reference has no damping.
          It clips {embedding, head} and all else apart, its vectors follow NAdam, and its Muon mixes the gradient
          into a momentum that is corrected for its bias. Options do so here, and specs/paper uses them; whole outer
          steps then agree to 7e-10. From 11 layers on its layerwise code moves blocks 10 and 11 in the solve of block
          1 too, and ours does so with `blocks: prefix` alone
Use:      few steps at a batch far larger than the best batch of a first-order method. Muon at a small batch needs
          fewer FLOPs and seconds (docs/results)
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.crew import Crew
from gnflow.objective import LocalModel, Metrics, Objective, Params
from gnflow.optim.adaptive_solve import Best, Measure, is_lower, make_measure
from gnflow.optim.averages import Average, add_weighted, average_last
from gnflow.optim.damping import adapt, add_damping
from gnflow.optim.messages import average_metrics, hear_metrics, say_metrics
from gnflow.optim.protocol import AnyState, Cost, Jit, Part, Solver, eager, jit_for_block, make_rate
from gnflow.optim.search import Search

DAMPING = "gn/damping"


class Block(NamedTuple):
    """Parameters that are solved for together."""

    names: tuple[str, ...]
    inner: Solver


class GaussNewtonState(NamedTuple):
    """The starting point of the next inner solve, and the state of each block's inner optimizer."""

    point: Params
    inner: dict[str, AnyState]
    memory: Metrics
    """Numbers that damping and search keep from step to step; empty if they keep none."""


class Solved(NamedTuple):
    """The result of one block's solve."""

    point: Params
    goal: Params
    """The mean of the inner iterates; it is `point` itself if only the last iterate counts."""
    inner: AnyState
    first: Metrics
    """Metrics of the first inner step. Their learning rate is the one that the solve began with."""
    last: Metrics
    """Metrics of the last inner step. Their loss is the model's, with the other blocks at the anchor."""


class GaussNewton:
    """Gauss-Newton, full with one block and layerwise with several.

    The inner optimizers get `objective.curved` and never the true gradient.
    """

    def __init__(
        self,
        blocks: Mapping[str, Block],
        inner_steps: int,
        search: Search,
        warm_start: bool = True,
        average: Average | None = None,
        damping: float = 0.0,
        carry: float | None = None,
        reset: bool = False,
        checks: Collection[int] = (),
        jit: Jit = eager,
    ) -> None:
        self.damping, self.carry, self.reset = damping, carry, reset
        self.blocks, self.inner_steps, self.search, self.warm_start = blocks, inner_steps, search, warm_start
        self.iterate_weights = (average or average_last())(inner_steps)
        self.averaged = any(self.iterate_weights[:-1])
        if checks and (len(blocks) > 1 or self.averaged):
            raise ValueError("checks need one block, and the last inner iterate as the goal")
        self.checks = frozenset(n for n in (*checks, inner_steps) if n <= inner_steps) if checks else frozenset()
        self.advance = {
            name: jit_for_block(jit, name)("inner", block.inner.step, every=0) for name, block in blocks.items()
        }
        costs = [block.inner.cost for block in blocks.values()]
        if len({cost.solve for cost in costs}) != 1:
            raise ValueError("the inner optimizers of all blocks must take the same number of micro-batches")
        # All blocks use the same micro-batches and do not wait for one another.
        self.width = costs[0].solve
        # Without a search a step still takes one more pass if the damping needs the gain ratio.
        passes = inner_steps * max(cost.passes for cost in costs) + max(search.passes, int(damping > 0))
        passes += len(self.checks)
        self.cost = Cost(inner_steps * self.width, search.microbatches, passes)

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.cost.microbatches

    def init(self, params: Params) -> GaussNewtonState:
        """Return the state before the first step. The first solve starts from the params themselves."""
        inner = {name: block.inner.init(trees.pick(params, block.names)) for name, block in self.blocks.items()}
        memory = {**self.search.memory, **({DAMPING: self.damping} if self.damping else {})}
        return GaussNewtonState(trees.clone(params), inner, {name: make_rate(n, params) for name, n in memory.items()})

    def parts(self, params: Params, state: GaussNewtonState) -> Iterator[Part]:
        """Return the parts of every block."""
        for name, block in self.blocks.items():
            yield from block.inner.parts(trees.pick(params, block.names), state.inner[name])

    def step(
        self, objective: Objective, params: Params, state: GaussNewtonState, batch: Tensor
    ) -> tuple[Params, GaussNewtonState, Metrics]:
        """Take one outer step. The batch has the micro-batches of the solve first, then those of the search."""
        # No copy is needed, since nothing that a step computes shares storage with the weights that it was given.
        anchor = params
        model, solve = objective.build_model(anchor), torch.split(batch[: self.cost.solve], self.width)
        if self.damping:
            model = add_damping(model, anchor, state.memory[DAMPING])
        tried = batch[-self.search.sees :]
        solved = self._solve_all(model, anchor, state, solve, make_measure(objective, anchor, tried))
        point, goal = (
            trees.pick({name: w for part in parts for name, w in part.items()}, params)
            for parts in ([found.point for found in solved.values()], [found.goal for found in solved.values()])
        )
        found = self.search(objective, model, anchor, goal, tried, state.memory)
        metrics = {
            **found.metrics,
            "norm/update": trees.norm(trees.subtract(found.params, anchor)),
            # With several blocks this is their mean, since no block has seen the others move.
            "gn/model_loss": torch.stack([block.last["loss/train"] for block in solved.values()]).mean(),
            # For dominance this is the mean over all matrices if blocks have equally many.
            **average_metrics([block.last for block in solved.values()], "dominance/", "gn/"),
        }
        rates = [block.first["learning_rate"] for block in solved.values() if "learning_rate" in block.first]
        if rates:
            metrics["learning_rate"] = rates[0]
        memory = {**state.memory, **found.memory}
        if self.damping:
            metrics[DAMPING] = memory[DAMPING]
            memory[DAMPING] = adapt(memory[DAMPING], found.metrics["gn/gain_ratio"])
        if self.carry is not None:
            point = trees.move_along(found.params, trees.subtract(point, anchor), self.carry)
        inner = {name: block.inner for name, block in solved.items()}
        return found.params, GaussNewtonState(trees.select(found.accepted, point, anchor), inner, memory), metrics

    def whole(self, params: Params, state: GaussNewtonState, crew: Crew) -> GaussNewtonState:
        """Return the state with the parts of inner optimizers that other processes own. All processes call it."""
        if crew.size == 1 or crew.owners:
            return state
        inner = {
            name: block.inner.whole(trees.pick(params, block.names), state.inner[name], crew)
            for name, block in self.blocks.items()
        }
        return state._replace(inner=inner)

    def join_blocks(self, state: GaussNewtonState, crew: Crew) -> GaussNewtonState:
        """Return the state with the blocks that other processes have solved for. All processes call it."""
        if crew.size == 1 or not crew.owners:
            return state
        parts = {name: (trees.pick(state.point, b.names), state.inner[name]) for name, b in self.blocks.items()}
        sent: dict[int, Params] = defaultdict(dict)
        for name, tensor in trees.name_tensors(parts).items():
            sent[crew.owners[name.partition("/")[0]]][name] = tensor
        crew.spread(sent)
        found = trees.fill_tensors(parts, {name: tensor for tree in sent.values() for name, tensor in tree.items()})
        point = {name: tensor for part, _ in found.values() for name, tensor in part.items()}
        return state._replace(
            point=trees.pick(point, state.point), inner={name: inner for name, (_, inner) in found.items()}
        )

    def _solve_all(
        self, model: LocalModel, anchor: Params, state: GaussNewtonState, solve: Sequence[Tensor], measure: Measure
    ) -> dict[str, Solved]:
        """Solves for all blocks. If a crew has owners, each process solves for its own and sends the goals."""
        crew = model.crew
        if crew.size == 1 or not crew.owners:
            return {name: self._solve(name, model, anchor, state, solve, measure) for name in self.blocks}
        alone = model._replace(crew=crew.make_single())
        solved = {
            name: self._solve(name, alone, anchor, state, solve, measure)
            for name in self.blocks
            if crew.owners[name] == crew.rank
        }
        goals: dict[int, Params] = defaultdict(dict)
        for name, block in self.blocks.items():
            goals[crew.owners[name]] |= solved[name].goal if name in solved else trees.pick(anchor, block.names)
        crew.spread(goals)
        told = crew.collect({name: [say_metrics(each.first), say_metrics(each.last)] for name, each in solved.items()})
        for name in self.blocks:
            owner = crew.owners[name]
            if owner != crew.rank:
                goal = trees.pick(goals[owner], self.blocks[name].names)
                # `join_blocks` fetches the point under a mean, and the state of the inner optimizer.
                point = trees.pick(state.point, goal) if self.averaged else goal
                first, last = (hear_metrics(metrics, anchor) for metrics in told[owner][name])
                solved[name] = Solved(point, goal, state.inner[name], first, last)
        return {name: solved[name] for name in self.blocks}

    def _solve(
        self,
        block: str,
        model: LocalModel,
        anchor: Params,
        before: GaussNewtonState,
        solve: Sequence[Tensor],
        measure: Measure,
    ) -> Solved:
        names, inner = self.blocks[block]
        # If the point aliased the anchor in the first inner step alone, `curved` would be compiled a second time.
        point = trees.pick(before.point, names) if self.warm_start else trees.clone(trees.pick(anchor, names))
        state = inner.init(point) if self.reset else before.inner[block]
        total: Params = {}
        first: Metrics = {}
        best: Best | None = None
        for number, (weight, microbatches) in enumerate(zip(self.iterate_weights, solve, strict=True), 1):
            point, state, metrics = self.advance[block](model, point, state, microbatches)
            first = first or metrics
            if weight and self.averaged:
                total = add_weighted(total, point, weight)
            if number in self.checks:
                loss = measure(point)
                if not is_lower(loss, best):
                    break
                # The next inner step may write into the point and the state.
                kept = (point, state) if number == self.inner_steps else trees.clone((point, state))
                best = Best(loss, number, *kept, metrics)
        if best is not None:
            point, state = best.point, best.state
            metrics = {**best.metrics, "gn/inner_steps": torch.full_like(best.loss, best.number)}
        goal = trees.scale(total, 1 / sum(self.iterate_weights)) if self.averaged else point
        return Solved(point, goal, state, first, metrics)
