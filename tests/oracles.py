"""Dense references: Jacobians and Hessians written out as matrices, and nothing shared with what they check."""

from collections.abc import Callable
from math import prod

import torch
from problems import Problem
from torch import Tensor
from torch.nn import functional

from gnflow.objective import Params


class Dense:
    """f(w) = f(anchor) + J (w - anchor), with J a matrix of (rows time vocabulary) x (weights)."""

    def __init__(self, problem: Problem, weights: Tensor | None = None, choice: Tensor | None = None) -> None:
        """`weights` of the targets, one after another; `choice`, the ids that each softmax is over."""
        self.names = list(problem.params)
        self.shapes = [problem.params[name].shape for name in self.names]
        ids = problem.tokens if problem.tokens.ndim == 2 else problem.tokens[..., 0]
        self.targets = ids[:, 1:].flatten()
        self.weights, self.choice = weights, choice
        self.anchor = self.flat(problem.params)

        def logits(flat: Tensor) -> Tensor:
            return problem.model.compute_logits(self.tree(flat), problem.tokens[:, :-1]).flatten()

        self.logits = logits(self.anchor)
        self.jacobian = torch.func.jacrev(logits)(self.anchor)
        self.vocabulary = len(self.logits) // len(self.targets)

    def flat(self, tree: Params) -> Tensor:
        return torch.cat([tree[name].flatten() for name in self.names])

    def tree(self, flat: Tensor) -> Params:
        sizes = [shape.numel() for shape in self.shapes]
        parts = flat.split(sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def loss(self, logits: Tensor) -> Tensor:
        logits = logits.view(-1, self.vocabulary)
        if self.choice is not None:
            logits = logits.where(self.choice, -1e9)
        losses = functional.cross_entropy(logits, self.targets, reduction="none")
        return losses.mean() if self.weights is None else losses @ self.weights / self.weights.sum()

    def quadratic(self, params: Params) -> tuple[Tensor, Tensor]:
        """(J'(l' + H J d), value of the expansion)."""
        v = self.jacobian @ (self.flat(params) - self.anchor)
        slope = torch.func.grad(self.loss)(self.logits)
        hessian = torch.func.hessian(self.loss)(self.logits)
        value = self.loss(self.logits) + slope @ v + 0.5 * v @ hessian @ v
        return self.jacobian.T @ (slope + hessian @ v), value

    def whitened(self, params: Params) -> tuple[Tensor, Tensor]:
        """(J'(l' + S J d), its value), S diagonal: the share of each target, on the ids of its softmax."""
        v, shares = self.jacobian @ (self.flat(params) - self.anchor), self.shares()
        slope = torch.func.grad(self.loss)(self.logits)
        value = self.loss(self.logits) + slope @ v + 0.5 * v @ (shares * v)
        return self.jacobian.T @ (slope + shares * v), value

    def shares(self) -> Tensor:
        """For each of V logits the share of its target, over V, or 0 where the softmax is over other ids."""
        weights = torch.ones(len(self.targets), dtype=self.logits.dtype) if self.weights is None else self.weights
        on = torch.ones(len(self.targets), self.vocabulary) if self.choice is None else self.choice
        return (on.to(weights) * (weights / weights.sum()).unsqueeze(-1)).flatten() / self.vocabulary

    def slope(self) -> Tensor:
        """J' l', at the anchor."""
        return self.jacobian.T @ torch.func.grad(self.loss)(self.logits)

    def curvature(self, form: str = "quadratic") -> Tensor:
        """J' B J, a matrix of (weights) x (weights)."""
        bend = torch.diag(self.shares()) if form == "whitened" else torch.func.hessian(self.loss)(self.logits)
        return self.jacobian.T @ bend @ self.jacobian

    def hessian(self, problem: Problem) -> Tensor:
        """Of the loss itself, (weights) x (weights)."""

        def loss(flat: Tensor) -> Tensor:
            return self.loss(problem.model.compute_logits(self.tree(flat), problem.tokens[:, :-1]).flatten())

        return torch.func.hessian(loss)(self.anchor)

    def operator(self, matrix: Tensor) -> Callable[[Params], Params]:
        """The matrix as a function of a direction."""
        return lambda direction: self.tree(matrix @ self.flat(direction))

    def prox_linear(self, params: Params) -> tuple[Tensor, Tensor]:
        """(J' l'(z + J d), l(z + J d))."""
        moved = self.logits + self.jacobian @ (self.flat(params) - self.anchor)
        return self.jacobian.T @ torch.func.grad(self.loss)(moved), self.loss(moved)


class Symmetric:
    """A random symmetric matrix over a few tensors, with eigenvalues of its own; blocks `one` and `two`."""

    def __init__(self, eigenvalues: Tensor | None = None, seed: int = 0) -> None:
        self.shapes = {"one/a": (3, 4), "one/b": (5,), "two/c": (4, 2)}
        self.blocks = {"one": ("one/a", "one/b"), "two": ("two/c",)}
        n = sum(prod(shape) for shape in self.shapes.values())
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
        self.eigenvalues = torch.linspace(-2, 5, n, dtype=torch.float64) if eigenvalues is None else eigenvalues
        self.matrix = basis * self.eigenvalues @ basis.T
        owner = torch.cat([torch.full((prod(s),), name.startswith("one")) for name, s in self.shapes.items()])
        self.within = owner[:, None] == owner

    def tree(self, flat: Tensor) -> Params:
        parts = flat.split([prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def __call__(self, direction: Params) -> Params:
        return self.tree(self.matrix @ torch.cat([direction[name].flatten() for name in self.shapes]))

    def orthogonal_signs(self) -> list[Params]:
        """Vectors of -1 and 1 with mean v v' = 1: over them what is quadratic in v has exactly its expectation."""
        signs = torch.ones(1, 1, dtype=torch.float64)
        while len(signs) < len(self.matrix):
            signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
        return [self.tree(row) for row in signs[:, : len(self.matrix)]]
