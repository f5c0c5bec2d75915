"""Sophia-G against the published update and against the exact diagonal of the Gauss-Newton matrix."""

from itertools import product

import multimodal
import problems
import pytest
import torch
from problems import experiment, noise
from pytorch_optimizer import SophiaH

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.plan import plan
from gnflow.curvature import staged
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.models.loss import compute_probabilities, draw_labels
from gnflow.objective import Objective
from gnflow.optim import as_torch, chain, clip_by_global_norm, hyperball, lion, partition, sophia
from gnflow.optim.descent import Descent
from gnflow.optim.observation import draw_noise
from gnflow.optim.protocol import eager
from gnflow.optim.stacks import Stacks
from gnflow.verify.subject import draw_start, draw_text, shrink

SHAPES = {"a": (5, 3), "b": (7,)}


def drawn(seed):
    return noise({name: torch.empty(shape, dtype=torch.float64) for name, shape in SHAPES.items()}, seed)


def test_updates_are_the_published_ones_given_the_same_estimates():
    """The code bounds M / max(H, eps) by p and has no gamma: gamma = p, and the rates differ by p."""
    ours, theirs = drawn(0), {name: torch.nn.Parameter(w.clone()) for name, w in drawn(0).items()}
    p = 0.05
    reference = SophiaH(theirs.values(), lr=0.2, betas=(0.9, 0.8), p=p, eps=1e-8, weight_decay=0.0)
    transform = sophia(0.2 * p, (0.9, 0.8), p, p * 1e-8, weight_decay=0.0)
    state, clipped = transform.init(ours), []
    for step in range(12):
        gradients, estimate = drawn(step + 1), {name: h.abs() for name, h in drawn(step + 50).items()}
        for name, parameter in theirs.items():
            parameter.grad = gradients[name].clone()
        reference.step(hessian=list(estimate.values()))
        state = transform.curvature.observe(estimate, state)
        updates, state = transform.update(gradients, state, ours)
        ours = trees.add(ours, updates)
        clipped += [float((u.abs() > 0.99 * 0.2 * p).double().mean()) for u in updates.values()]
        torch.testing.assert_close(ours, {name: w.detach() for name, w in theirs.items()}, atol=1e-12, rtol=1e-10)
    assert 0.05 < sum(clipped) / len(clipped) < 0.95


def test_before_the_first_estimate_every_entry_moves_by_the_rate():
    transform = sophia(0.5, weight_decay=0.0)
    updates, _ = transform.update(drawn(1), transform.init(drawn(0)), drawn(0))
    assert torch.equal(updates["a"], -0.5 * drawn(1)["a"].sign())


@pytest.mark.parametrize("kind", ["text", "emu3", "janus"])
def test_the_mean_of_all_estimates_is_the_diagonal_of_the_gauss_newton_matrix(kind):
    """Every combination of labels, weighed by its probability, against products with unit vectors."""
    network, params, tokens = problems.small() if kind == "text" else multimodal.small(kind)
    problem, tokens = build.build_exact(network), tokens[:1, :3]
    inputs, targets = network.split(tokens)
    p = compute_probabilities(network.compute_logits(params, inputs), targets)
    edges = torch.cat((torch.zeros_like(p[..., :1]), p.cumsum(-1)), -1)
    mean, total = trees.zeros(trees.pick(params, network.moving)), 0.0
    for labels in product(range(p.shape[-1]), repeat=2):
        chosen = [p[0, t, y] for t, y in enumerate(labels)]
        if not all(chosen):
            continue
        middles = [1 - (edges[0, t, y] + edges[0, t, y + 1]) / 2 for t, y in enumerate(labels)]
        choice = torch.stack(middles).unsqueeze(0)
        assert draw_labels(p, choice).tolist() == [list(labels)]
        weight = float(chosen[0] * chosen[1])
        mean, total = trees.move_along(mean, problem.diagonal(params, choice, tokens), weight), total + weight
    assert total == pytest.approx(1.0)
    generator = torch.Generator().manual_seed(0)
    for name in list(mean)[:: max(len(mean) // 5, 1)]:
        at = int(torch.randint(mean[name].numel(), (), generator=generator))
        unit = torch.zeros_like(params[name])
        unit.view(-1)[at] = 1
        expected = problem.product({name: unit}, params, tokens)[name].view(-1)[at]
        torch.testing.assert_close(mean[name].view(-1)[at], expected, atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("kind", ["text", "janus"])
def test_an_estimate_in_pieces_is_that_of_the_whole(kind):
    network, params, tokens = problems.small() if kind == "text" else multimodal.small(kind)
    thrift, choice = staged.Thrift(3, True), draw_noise(tokens, "pieces")
    cut = staged.build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"], thrift)
    expected = build.build_exact(network).diagonal(params, choice, tokens)
    torch.testing.assert_close(cut.diagonal(params, choice, tokens), expected)


def test_no_label_without_probability_is_drawn():
    p = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0]).expand(1, 4, 5)
    extremes = torch.tensor([[0.0, 1 - 2**-24, 0.69, 0.71]])
    assert draw_labels(p, extremes).tolist() == [[3, 1, 3, 1]]
    many = draw_labels(p[:, :1].expand(1, 20000, 5), torch.rand(1, 20000, generator=torch.Generator().manual_seed(1)))
    assert (many == 3).double().mean().item() == pytest.approx(0.7, abs=0.02)


def counted(method, steps=7, seed=0):
    """The updates before which an estimate was made, with the noise of each, and the final weights."""
    seen = []

    def diagonal(params, noise, tokens):
        seen.append((int(tokens[0, 0]), noise))
        return {name: w * w + tokens[0, 0] for name, w in params.items()}

    objective = Objective(None, lambda params, tokens: (params, params["a"].sum()), None, diagonal=diagonal)
    stacks = Stacks.by_rule(dict.fromkeys(SHAPES, "all"), SHAPES)
    optimizer = Descent(partition({"all": method}, stacks.rules), stacks, 2, seed=seed)
    params, state, states = drawn(0), optimizer.init(drawn(0)), []
    for step in range(steps):
        batch = torch.full((2, 3, 5), 2 * step) + torch.arange(2).view(2, 1, 1)
        params, state, _ = optimizer.step(objective, params, state, batch)
        states.append(state)
    return seen, params, states


@pytest.mark.parametrize("wrap", [lambda made: made, lambda made: chain(clip_by_global_norm(9.0), made), hyperball])
def test_an_estimate_is_the_mean_over_the_micro_batches_of_every_kth_step(wrap):
    seen, _, states = counted(wrap(sophia(0.01, estimate_every=3)))
    assert [step for step, _ in seen] == [0, 1, 6, 7, 12, 13]
    assert all(noise.shape == (3, 4) for _, noise in seen)
    state = states[0]["all"]
    inner = state[-1] if type(state) is tuple else getattr(state, "inner", state)
    stacks = Stacks.by_rule(dict.fromkeys(SHAPES, "all"), SHAPES)
    expected = stacks.stack({name: 0.01 * (w * w + 0.5) for name, w in drawn(0).items()})
    torch.testing.assert_close(inner.diagonal, expected)


def test_labels_are_a_function_of_the_seed_the_update_and_the_micro_batch():
    one, again, other = (counted(sophia(0.01, estimate_every=3), seed=seed)[0] for seed in (0, 0, 1))
    assert all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(one, again, strict=True))
    noises = [noise for _, noise in one] + [noise for _, noise in other]
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])
    tokens = torch.zeros(3, 5, 6)  # ids and channels
    assert draw_noise(tokens, "x").shape == (3, 4)


def test_the_plan_counts_a_fraction_of_an_estimate_for_each_micro_batch():
    made = plan(experiment({"kind": "sophia", "estimate_every": 4, "microbatches": 3}))
    assert (made.calls["diagonal"], made.calls["gradient"], "observe" in made.calls) == (0.75, 3, False)
    assert made.regions["diagonal"].flops == made.regions["gradient"].flops
    assert (made.passes, made.microbatches) == (1, 3)


def test_the_seed_of_a_run_reaches_the_labels():
    small = shrink(experiment({"kind": "sophia", "microbatches": 1}))
    network = build.build_model(small, "plain")
    start, tokens = draw_start(small, network), draw_text(small, 1, 0)
    states = []
    for seed in (0, 0, 1):
        optimizer = methods.build_optimizer(small.optimizer, network, 3, eager, seed=seed)
        state = optimizer.init(trees.clone(start))
        _, state, _ = optimizer.step(build.build_objective(network, small), trees.clone(start), state, tokens)
        states.append(trees.name_tensors(state))
    key = next(name for name in states[0] if "/diagonal/" in name)
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_inside_gauss_newton_the_estimate_is_that_at_the_anchor():
    network, anchor, tokens = problems.small()
    objective = problems.build(network)
    stacks = Stacks.by_rule(dict.fromkeys(anchor, "all"), {name: w.shape for name, w in anchor.items()})
    optimizer = Descent(partition({"all": sophia()}, stacks.rules), stacks, 1)
    states = []
    for where, at in ((objective, anchor), (objective.build_model(anchor), trees.scale(anchor, 1.1))):
        _, state, _ = optimizer.step(where, at, optimizer.init(at), tokens[None])
        states.append(state["all"].diagonal)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_in_a_loop_of_ones_own_squares_of_the_gradients_are_observed():
    weight = torch.nn.Parameter(drawn(0)["a"].clone())
    optimizer = as_torch(sophia(0.01, (0.9, 0.75), weight_decay=0.0), [("w", weight)])
    weight.grad = drawn(1)["a"]
    optimizer.observe(targets=8)
    torch.testing.assert_close(optimizer.state[weight]["diagonal"], 2 * drawn(1)["a"].square())
    with pytest.raises(ValueError, match="takes no estimates"):
        as_torch(lion(), [weight]).observe(1)
