"""On a quadratic with a known matrix G, and a Hessian that is another."""

import problems
import pytest
import torch
from oracles import Symmetric
from problems import moment, noise, token_batch

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as compile_plan
from gnflow.curvature.hessian import make_hessian_product
from gnflow.metrics.curvature import FLOOR, CurvatureProbes
from gnflow.objective import Objective
from gnflow.optim.adamw import adamw
from gnflow.optim.combine import partition
from gnflow.optim.descent import Descent
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import Block, GaussNewton
from gnflow.optim.muon import muon
from gnflow.optim.protocol import eager
from gnflow.optim.search import FullStep
from gnflow.optim.soap import soap
from gnflow.optim.stacks import Stacks
from gnflow.spec import training as spec

ASKED = spec.Curvature(eigenvalues=3, iterations=25, probes=25, damping=0.5)
GGN = Symmetric(torch.logspace(-1, 1, 25, dtype=torch.float64))
HESSIAN = Symmetric(torch.linspace(-3, 4, 25, dtype=torch.float64), seed=1)
PARAMS = noise(GGN.tree(GGN.eigenvalues), 5)
MATRICES = {"one/a": "one", "two/c": "two"}
CONDITIONS = {f"curvature/condition/{name}" for name in ("none", "root", "second_moment")}


def flat(tree):
    return torch.cat([tree[name].flatten() for name in GGN.shapes])


def objective(symmetric):
    """<w, A w> / 2, twice as steep in the second micro-batch; directions may name a part."""

    def product(direction, anchor, tokens):
        whole = symmetric({**trees.zeros(anchor), **direction})
        return trees.scale(trees.pick(whole, direction), 1.0 + tokens[0, 0])

    def gradient(params, tokens):
        return product(params, params, tokens), torch.zeros((), dtype=torch.float64)

    return Objective(None, gradient, lambda params, anchor, tokens: gradient({**anchor, **params}, tokens), product)


BATCH = torch.arange(3, dtype=torch.float64).view(3, 1, 1)


def descent(names, routes=MATRICES):
    """SOAP on the matrices among them, AdamW on the vector."""
    rules = {name: "soap" if name in routes else "others" for name in names}
    stacks = Stacks.by_rule(rules, {name: GGN.shapes[name] for name in names})
    transforms = {"soap": soap(precondition_frequency=1), "others": adamw()._replace(metric=None)}
    return Descent(partition(transforms, stacks.rules), stacks)


def layerwise():
    return GaussNewton({name: Block(names, descent(names)) for name, names in GGN.blocks.items()}, 1, FullStep())


def stepped(optimizer, steps=4):
    """Its state after steps along random gradients."""
    state = optimizer.init(PARAMS)
    for i in range(steps):

        def gradient(params, tokens, i=i):
            return trees.pick(noise(PARAMS, 100 + i), params), torch.zeros(())

        problem = Objective(lambda *_: torch.zeros(()), gradient, lambda params, anchor, tokens: gradient(params, 0))
        _, state, _ = optimizer.step(problem, trees.clone(PARAMS), state, BATCH[:1])
    return state


def measured(optimizer, state, before=None, asked=ASKED, seed=0):
    probe = CurvatureProbes(asked, objective(GGN), objective(HESSIAN), GGN.blocks, seed)
    batch = BATCH[: asked.microbatches]
    return probe.measure(moment(PARAMS, batch, before=before, optimizer=optimizer, state=state))


def test_the_spectra_are_those_of_both_matrices():
    optimizer = descent(GGN.shapes)
    found = measured(optimizer, optimizer.init(PARAMS))
    for kind, symmetric in (("ggn", GGN), ("hessian", HESSIAN)):
        largest = symmetric.eigenvalues.sort(descending=True).values
        for i in range(3):
            assert found[f"curvature/eigenvalue/{kind}_{i + 1}"].item() == pytest.approx(largest[i].item())
        assert f"curvature/eigenvalue/{kind}_4" not in found
        # As many probes as there are weights: their images span everything.
        assert found[f"curvature/trace/{kind}"].item() == pytest.approx(symmetric.eigenvalues.sum().item())
        assert found[f"curvature/error/{kind}"] < 1e-8
    assert found["curvature/least/hessian"].item() == pytest.approx(-3.0)
    share = ((GGN.matrix * GGN.within).square().sum() / GGN.matrix.square().sum()).item()
    assert found["curvature/block_share"].item() == pytest.approx(share, abs=0.1)
    assert not {name for name in found if "/gn_" in name or "condition" in name}


def test_several_microbatches_are_one_mean():
    optimizer = descent(GGN.shapes)
    found = measured(optimizer, optimizer.init(PARAMS), asked=ASKED.model_copy(update={"microbatches": 2}))
    assert found["curvature/eigenvalue/ggn_1"].item() == pytest.approx(1.5 * 10.0)


def coordinates(state, rule, stack, name):
    """(columns of the basis in all weights, V): of one matrix, straight from SOAP's state."""
    own = state[rule]
    columns, v = [], []
    left, right = own.left_basis[stack][0], own.right_basis[stack][0]
    for i in range(len(left)):
        for j in range(len(right)):
            columns.append(flat({**trees.zeros(PARAMS), name: torch.outer(left[:, i], right[:, j])}))
            v.append(own.second[stack][0, i, j])
    return torch.stack(columns, 1), torch.stack(v)


def check_conditions(found, basis, v):
    """Against those of P^-1/2 B' G B P^-1/2, P = 1, V^1/2 or V."""
    for name, power in (("none", 0.0), ("root", 0.5), ("second_moment", 1.0)):
        # The correction of V's bias is one number: it is no part of a condition number.
        p = v**power
        root = (p + FLOOR * p.mean()).sqrt()
        eigenvalues = torch.linalg.eigvalsh(basis.T @ GGN.matrix @ basis / root / root[:, None])
        expected = (eigenvalues[-1] / eigenvalues[0]).item()
        assert found[f"curvature/condition/{name}"].item() == pytest.approx(expected, rel=1e-6)
    assert len({found[name].item() for name in CONDITIONS}) == 3


@pytest.mark.parametrize("blocks", ["full", "layerwise", "frozen"])
def test_the_condition_is_that_of_the_dense_matrix_in_the_coordinates_of_soap(blocks):
    optimizer = {"full": descent(GGN.shapes), "layerwise": layerwise(), "frozen": None}[blocks]
    optimizer = optimizer or Frozen(descent(("one/a", "one/b")), ("one/a", "one/b"))
    state = stepped(optimizer)
    found = measured(optimizer, state)
    parts = []
    for name, block in MATRICES.items():
        if blocks != "frozen" or name == "one/a":
            own = state.inner[block] if blocks == "layerwise" else state
            stack = "soap:" + "x".join(map(str, GGN.shapes[name]))
            parts.append(coordinates(own, "soap", stack, name))
    basis, v = torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts])
    torch.testing.assert_close(basis.T @ basis, torch.eye(len(v), dtype=torch.float64))
    assert (basis.abs() > 0.99).sum() < len(v) / 2, "the coordinates are turned"
    check_conditions(found, basis, v)


def test_a_transform_without_statistics_has_no_condition():
    rules = {name: "muon" if name in MATRICES else "others" for name in GGN.shapes}
    stacks = Stacks.by_rule(rules, GGN.shapes)
    plain = Descent(partition({"muon": muon(), "others": adamw()._replace(metric=None)}, stacks.rules), stacks)
    assert not CONDITIONS & set(measured(plain, stepped(plain)))


def test_of_adamw_it_is_that_of_the_dense_matrix_over_its_second_moments():
    stacks = Stacks.by_rule(dict.fromkeys(GGN.shapes, "all"), GGN.shapes)
    optimizer = Descent(partition({"all": adamw()}, stacks.rules), stacks)
    state = stepped(optimizer)
    found = measured(optimizer, state)
    check_conditions(found, torch.eye(25, dtype=torch.float64), flat(stacks.unstack(state["all"].second)))


@pytest.mark.parametrize(("kind", "share"), [("adamw", 1.0), ("soap", 0.4), ("fop_soap", 0.4), ("muon", 0.0)])
def test_a_condition_is_that_of_the_method_of_the_matrices(kind, share):
    made = problems.experiment({"kind": kind, "microbatches": 2})
    optimizer = methods.build_optimizer(made.optimizer, build.build_model(made, "plain"), 4, eager)
    params = build.build_model(made, "plain").init(0)
    metric = optimizer.transform.metric
    seen = {} if metric is None else metric.diagonal(optimizer.init(params))
    weights = sum(value.numel() for value in seen.values()), sum(w.numel() for w in params.values())
    assert weights[0] / weights[1] == pytest.approx(share, abs=0.2)


def test_the_last_update_is_compared_with_the_gauss_newton_step_where_it_started():
    optimizer = descent(GGN.shapes)
    before = trees.move_along(PARAMS, noise(PARAMS, 9), 0.3)
    found = measured(optimizer, optimizer.init(PARAMS), before)
    update = flat(PARAMS) - flat(before)
    damped = GGN.matrix + 0.5 * torch.eye(25, dtype=torch.float64)
    step = torch.linalg.solve(damped, -GGN.matrix @ flat(before))
    cosine = (update @ step / update.norm() / step.norm()).item()
    assert abs(cosine) > 0.05
    assert found["curvature/gn_cosine"].item() == pytest.approx(cosine, rel=1e-5)
    assert found["curvature/gn_norm_ratio"].item() == pytest.approx((update.norm() / step.norm()).item(), rel=1e-5)
    assert found["curvature/gn_residual"] < 1e-5


def test_the_probes_are_a_function_of_the_seed_alone():
    optimizer = descent(GGN.shapes)
    state, asked = optimizer.init(PARAMS), ASKED.model_copy(update={"probes": 2})
    torch.manual_seed(1)
    drawn = torch.get_rng_state()
    one, other = (measured(optimizer, state, asked=asked) for _ in range(2))
    assert torch.get_rng_state().equal(drawn)
    assert one == other
    third = measured(optimizer, state, asked=asked, seed=1)
    assert third["curvature/trace/ggn"] != one["curvature/trace/ggn"]


@pytest.mark.parametrize("form", ["quadratic", "whitened"])
def test_what_is_measured_is_the_loss_itself_whatever_model_gauss_newton_takes(form):
    gauss_newton = {"kind": "gauss_newton", "objective": form, "inner": {"kind": "muon"}, "search": "none"}
    program = compile_plan(plan(problems.experiment(gauss_newton, compile={"mode": "off"})))
    params = trees.map_tensors(torch.Tensor.double, program.initial())
    tokens, loss = token_batch(1)[0], build.build_exact(build.build_model(program.plan.experiment, "plain"))
    direction, h = noise(params, 1), 1e-5
    slopes = [loss.gradient(trees.move_along(params, direction, t), tokens)[0] for t in (-h, h)]
    difference = trees.scale(trees.subtract(slopes[1], slopes[0]), 0.5 / h)
    torch.testing.assert_close(
        make_hessian_product(loss.value)(direction, params, tokens), difference, rtol=1e-4, atol=1e-7
    )
    ggn = loss.product(direction, params, tokens)
    same = program.objective.product(direction, params, tokens)
    assert torch.allclose(flat_of(ggn), flat_of(same)) == (form == "quadratic")
    assert not torch.allclose(flat_of(ggn), flat_of(difference), rtol=1e-2)


def test_arms_are_comparable_whatever_model_they_take():
    found = []
    for form in ("quadratic", "whitened"):
        optimizer = {"kind": "gauss_newton", "objective": form, "inner": {"kind": "muon"}, "search": "none"}
        metrics = [{"kind": "curvature", "iterations": 4, "eigenvalues": 1, "probes": 1}]
        program = compile_plan(plan(problems.experiment(optimizer, metrics=metrics, compile={"mode": "off"})))
        found.append(program.evaluate(program.make_moment(program.init(program.initial()), token_batch(1))))
    assert found[0].keys() == found[1].keys()
    for name in ("curvature/eigenvalue/ggn_1", "curvature/eigenvalue/hessian_1", "curvature/trace/ggn"):
        assert found[0][name] == found[1][name]


def flat_of(tree):
    return torch.cat([tree[name].flatten() for name in sorted(tree)])
