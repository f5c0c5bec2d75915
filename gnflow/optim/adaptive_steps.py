"""Step lengths that adapt to the steps before.

    decrement   alpha = 1 / (1 + kappa nu),  nu^2 = <d, A d>       A = the curvature of the model with its damping
                if adaptive:  kappa <- 3/2 kappa if the loss fell by less than 1/4 of the decrease that the model
                predicted,  kappa <- 2/3 kappa if it fell by more than 3/4
    bracket     the best of alpha / sqrt 2, alpha and alpha sqrt 2, where alpha is the last step length; alpha is halved
                after a refused step

If the model was solved exactly, <d, A d> is g' A^-1 g, the squared Newton decrement. `decrement` makes no trial: it
takes the step whatever the loss says.

Source:   Goldfarb et al. 2025, arXiv:2511.15019 (decrement, with the Gauss-Newton matrix and a Levenberg term)
Differs:  the adaptive variant of the paper has another rule, for which only the abstract was at hand; ours is the rule
          of Levenberg and Marquardt. bracket is ours
"""

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import LocalModel, Metrics, Objective, Params
from gnflow.optim.damping import adapt
from gnflow.optim.means import average_product
from gnflow.optim.search import Found, average_loss, choose_trial, look, measure_gains

KAPPA, LENGTH = "gn/kappa", "length"


class Decrement:
    """Takes the step length from the curvature along the step alone, on the last micro-batches of the solve."""

    microbatches, passes = 0, 1

    def __init__(self, kappa: float = 1.0, adaptive: bool = False, sees: int = 1) -> None:
        self.kappa, self.adaptive, self.sees = kappa, adaptive, sees
        self.memory: Mapping[str, float] = {KAPPA: kappa} if adaptive else {}

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """Take the step, which is always accepted."""
        direction = trees.subtract(goal, anchor)
        bend = trees.dot(direction, average_product(model, direction, batch))
        kappa, nu = memory[KAPPA] if self.adaptive else self.kappa, bend.clamp(min=0).sqrt()
        alpha = 1 / (1 + kappa * nu)
        candidate = trees.move_along(anchor, direction, alpha)
        seen = look(objective, batch)
        before, after = (average_loss(objective, params, seen) for params in (anchor, candidate))
        found = measure_gains(objective, anchor, candidate, seen, before, after)
        metrics = {"loss/train": before, "gn/alpha": alpha, "gn/decrement": nu, **found}
        if self.adaptive:
            metrics[KAPPA] = memory[KAPPA]
        kept = {KAPPA: adapt(memory[KAPPA], found["gn/gain_ratio"])} if self.adaptive else {}
        return Found(candidate, torch.ones_like(before, dtype=torch.bool), metrics, kept)


class BracketSearch:
    """Tries three step lengths around the last one. The trials are independent and count as one serial pass."""

    passes = 1

    def __init__(self, microbatches: int = 8, fresh: bool = True) -> None:
        self.memory: Mapping[str, float] = {LENGTH: 1.0}
        self.microbatches, self.sees = microbatches if fresh else 0, microbatches

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """Take the best trial. A trial that is not finite loses; without any improvement the step is refused."""
        last = memory[LENGTH]
        lengths = last * torch.tensor([1.0, sqrt(0.5), sqrt(2.0)], dtype=last.dtype, device=last.device)
        found = choose_trial(objective, anchor, goal, batch, lengths)
        return found._replace(memory={LENGTH: torch.where(found.accepted, found.metrics["gn/alpha"], 0.5 * last)})
