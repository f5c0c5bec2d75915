from typing import NamedTuple

import pytest
import torch
from oracles import Dense
from problems import noise, small

from gnflow import trees
from gnflow.compiler import build
from gnflow.curvature.hessian import hessian
from gnflow.curvature.linearised import BENDS, curvature
from gnflow.metrics.curvature import FLOOR, Curvature, Moment
from gnflow.models.loss import cross_entropy, split
from gnflow.objective import Objective
from gnflow.optim.adamw import adamw
from gnflow.optim.combine import partition
from gnflow.optim.descent import Descent
from gnflow.optim.gauss_newton import Block, GaussNewton
from gnflow.optim.protocol import AnyState, Optimizer
from gnflow.optim.search import FullStep
from gnflow.optim.soap import soap
from gnflow.optim.stacks import Stacks
from gnflow.spec import training as spec

ASKED = spec.Curvature(eigenvalues=3, iterations=60, probes=6, damping=0.5)
WITH_STATISTICS = {"curvature/condition/none", "curvature/condition/root", "curvature/condition/second_moment"}


@pytest.fixture(scope="module")
def problem():
    return small()


@pytest.fixture(scope="module")
def dense(problem):
    return Dense(problem)


def value(params, tokens):
    inputs, targets = split(tokens)
    return cross_entropy(small().model.logits(params, inputs), targets)


def loss(problem):
    product = curvature(problem.model.logits, BENDS["quadratic"])
    return Objective(value, torch.func.grad_and_value(value), None, product)


def descent(problem, matrices):
    """`matrices` on the hidden matrices, AdamW on the rest."""
    routes = {name: "main" if name in problem.model.hidden else "others" for name in problem.params}
    stacks = Stacks.by_rule(routes, {name: tuple(w.shape) for name, w in problem.params.items()})
    transforms = {"main": matrices, "others": adamw()}
    return Descent(partition(transforms, stacks.rules()), stacks)


def blockwise(problem, matrices):
    """Layerwise, each block with its own state."""
    blocks = {}
    for block, names in problem.model.blocks.items():
        routes = {name: "main" if name in problem.model.hidden else "others" for name in names}
        stacks = Stacks.by_rule(routes, {name: tuple(problem.params[name].shape) for name in names})
        own = {rule: {"main": matrices, "others": adamw()}[rule] for rule in set(routes.values())}
        blocks[block] = Block(names, Descent(partition(own, stacks.rules()), stacks))
    return GaussNewton(blocks, 4, FullStep())


class Stepped(NamedTuple):
    """An optimizer after a few steps on random gradients, which is at the weights of the problem."""

    optimizer: Optimizer
    state: AnyState


def fed(optimizer, problem, steps=3):
    """Gradients of batches of one row each: more statistics than those of the problem."""
    noisy = loss(problem)._replace(
        curved=lambda params, anchor, tokens: (
            trees.pick(noise(problem.params, int(tokens.sum())), params),
            torch.zeros(()),
        ),
        gradient=lambda params, tokens: (noise(problem.params, int(tokens.sum())), torch.zeros(())),
    )
    params, state = problem.params, optimizer.init(problem.params)
    for step in range(steps):
        batch = problem.tokens.expand(optimizer.microbatches, -1, -1) + step
        batch = torch.stack([rows.roll(i, 1) * (i + 1) % 13 for i, rows in enumerate(batch)])
        params, state, _ = optimizer.step(noisy, params, state, batch)
    return Stepped(optimizer, state)


def measured(problem, stepped, asked=ASKED, before=None, seed=0):
    full = loss(problem)
    second = full._replace(product=hessian(value))
    probe = Curvature(asked, full, second, problem.model.blocks, stepped.optimizer, seed)
    return probe.measure(Moment(problem.params, before or {}, stepped.state), problem.tokens[None])


@pytest.fixture(scope="module")
def soaped(problem):
    return fed(descent(problem, soap(1e-3, precondition_frequency=1)), problem)


@pytest.fixture(scope="module")
def found(problem, soaped):
    return measured(problem, soaped)


def test_eigenvalues_and_the_least_one_are_those_of_the_dense_matrices(problem, dense, found):
    for kind, matrix in (("ggn", dense.curvature()), ("hessian", dense.hessian(problem))):
        expected = torch.linalg.eigvalsh(matrix)
        for i in range(3):
            assert found[f"curvature/eigenvalue/{kind}_{i + 1}"].item() == pytest.approx(expected[-1 - i].item())
        assert found[f"curvature/error/{kind}"] < 1e-6
        assert found[f"curvature/trace/{kind}"].item() == pytest.approx(matrix.trace().item(), rel=0.3)
    assert found["curvature/least/hessian"].item() == pytest.approx(expected[0].item(), rel=1e-3)
    assert "curvature/eigenvalue/ggn_4" not in found


def rotation(dense, problem, stepped):
    """(weights of the hidden matrices, coordinates): R with R' x the coordinates, column by column, and V in them."""
    optimizer, state = stepped.optimizer, stepped.state["main"]
    columns, rows, diagonal = [], dense.flat(mask(problem)).bool(), []
    for stack, names in optimizer.stacks.members.items():
        if stack not in state.second:
            continue
        for k, name in enumerate(names):
            left, right = state.left_basis[stack][k], state.right_basis[stack][k]
            for i in range(left.shape[1]):
                for j in range(right.shape[1]):
                    zero = trees.zeros(problem.params)
                    zero[name] = torch.outer(left[:, i], right[:, j]).view(zero[name].shape)
                    columns.append(dense.flat(zero)[rows])
                    diagonal.append(state.second[stack][k, i, j])
    return torch.stack(columns, 1), torch.stack(diagonal), rows


def mask(problem):
    return {name: torch.full_like(w, float(name in problem.model.hidden)) for name, w in problem.params.items()}


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_through_a_preconditioner_the_condition_is_that_of_the_dense_product(problem, dense, soaped, power):
    basis, v, rows = rotation(dense, problem, soaped)
    torch.testing.assert_close(basis.T @ basis, torch.eye(len(v), dtype=v.dtype))
    p = v**power
    root = (p + FLOOR * p.mean()).sqrt()
    matrix = basis.T @ (dense.curvature()[rows][:, rows]) @ basis / root / root[:, None]
    from gnflow.metrics.curvature import preconditioned
    from gnflow.optim.preconditioner import preconditioners

    parts = preconditioners(soaped.optimizer, soaped.state)
    operator, like = preconditioned(dense_operator(dense, problem), parts, power)
    direction = noise(like, 5)
    flat = ordered(direction, soaped)
    torch.testing.assert_close(ordered(operator(direction), soaped), matrix @ flat, rtol=1e-8, atol=1e-10)


def ordered(tree, stepped):
    """By stack, member, row and column, as `rotation` has the coordinates."""
    return torch.cat([tree[f"0/{stack}"].flatten() for stack in stepped.optimizer.stacks.members if f"0/{stack}" in tree])


def dense_operator(dense, problem):
    matrix = dense.curvature()
    return lambda direction: trees.pick(
        dense.tree(matrix @ dense.flat({**trees.zeros(problem.params), **direction})), direction
    )
