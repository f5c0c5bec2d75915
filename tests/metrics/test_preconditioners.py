"""The efficiencies against the matrices written out, on a tiny decoder in float64."""

import problems
import pytest
import torch
from problems import moment, noise

from gnflow import trees
from gnflow.compiler import build
from gnflow.errors import SpecError
from gnflow.metrics.candidates import isolate, start_trials
from gnflow.metrics.judges import Judge
from gnflow.metrics.preconditioners import Efficiencies, build_preconditioners
from gnflow.metrics.protocol import Subject
from gnflow.optim.observation import draw_noise
from gnflow.optim.protocol import eager
from gnflow.spec.preconditioners import Preconditioners
from gnflow.spec.rules import MuonRule

OF = [
    {"name": "adamw", "use": "adamw"},
    {"name": "muon", "use": "muon"},
    {"name": "sophia", "use": "sophia"},
    {"name": "soap", "use": "soap"},
    {"name": "ekfac", "use": {"kind": "kfac", "form": "corrected"}},
    {"name": "newton_muon", "use": "newton_muon"},
]
FEEDS, DAMPING = 3, 0.3
BLOCKS = {
    f"blocks.{i}": [f"blocks.{i}.{part}.weight" for part in ("attention.output", "feedforward.up")] for i in (0, 1)
}
NAMES = [name for names in BLOCKS.values() for name in names]


class Written(dict):
    """G + l over all the matrices on one batch, with its gradient."""

    def __init__(self, objective, params, tokens, level):
        self.sizes = {name: params[name].numel() for name in NAMES}
        anchor = trees.pick(params, NAMES)
        units = torch.eye(sum(self.sizes.values()), dtype=torch.float64)
        multiply = torch.func.vmap(
            lambda u: trees.flatten(objective.product(trees.unflatten(u, anchor), params, tokens))
        )
        self.matrix = multiply(units) + torch.diag(level)
        self.gradient = trees.flatten(trees.pick(objective.gradient(params, tokens)[0], NAMES))

    def places(self, names):
        ends = dict(zip(self.sizes, torch.tensor(list(self.sizes.values())).cumsum(0).tolist(), strict=True))
        return torch.cat([torch.arange(ends[name] - self.sizes[name], ends[name]) for name in names])

    def solve(self, names):
        at = self.places(names)
        return torch.linalg.solve(self.matrix[at][:, at], self.gradient[at])

    def rate(self, direction, names):
        at = self.places(names)
        g, a, d = self.gradient[at], self.matrix[at][:, at], direction[at]
        return float((g @ d).clamp(min=0) ** 2 / (d @ a @ d) / (g @ torch.linalg.solve(a, g)))


@pytest.fixture(scope="module")
def measured():
    """(columns, dense matrices of both batches, directions)."""
    network, params, _ = problems.small()
    objective = build.build_exact(network)
    spec = Preconditioners(of=OF, feeds=FEEDS, damping=DAMPING, iterations=400, tolerance=1e-10)
    probe = Efficiencies(spec, network, objective, BLOCKS, seed=0, rows=4)
    batches = torch.randint(13, (FEEDS + 2, 4, 6), generator=torch.Generator().manual_seed(3))
    at = moment(params, batches)
    found = probe.measure(at)
    trials = start_trials(spec.of, trees.pick(params, NAMES))
    for number, batch in enumerate(batches[:-1]):
        probe._feed(trials, at, batch[None], number)
    drawn = objective.diagonal(params, probe._draw(at, batches[-2:-1], -1)(0), batches[-2])
    level = torch.cat([(DAMPING * drawn[name].mean()).expand(params[name].numel()) for name in NAMES])
    written = {
        judge: Written(objective, params, batch, level)
        for judge, batch in zip(("same", "fresh"), batches[-2:], strict=True)
    }
    directions = {trial.name: trees.flatten(trees.pick(trial.direction, NAMES)) for trial in trials}
    same = written["same"]
    directions |= {
        "gradient": same.gradient,
        "oracle": torch.cat([same.solve([name]) for name in NAMES]),
        "oracle_layer": torch.cat([same.solve(names) for names in BLOCKS.values()]),
        "oracle_full": same.solve(NAMES),
    }
    return found, written, directions


@pytest.mark.parametrize("judge", ["same", "fresh"])
def test_every_efficiency_is_that_of_the_dense_matrix(measured, judge):
    found, written, directions = measured
    dense = written[judge]
    for name, direction in directions.items():
        apart = {each: dense.rate(direction, [each]) for each in NAMES}
        column = f"preconditioners/{name}/{judge}/1"
        expected = {
            column: sum(apart.values()) / len(apart),
            f"{column}/joint": dense.rate(direction, NAMES),
            **{f"{column}/{block}": sum(apart[n] for n in own) / len(own) for block, own in BLOCKS.items()},
            f"{column}/attention.output": (apart[NAMES[0]] + apart[NAMES[2]]) / 2,
        }
        for key, value in expected.items():
            assert found[key].item() == pytest.approx(value, rel=1e-6), key


def test_solutions_are_those_of_the_dense_matrix_with_or_without_the_preconditioner():
    """On two micro-batches, which are one with twice the rows for the dense matrix."""
    network, params, _ = problems.small()
    objective = build.build_exact(network)
    batch = torch.randint(13, (2, 64, 6), generator=torch.Generator().manual_seed(4))
    damping = {name: torch.tensor(0.01 * (i + 1), dtype=torch.float64) for i, name in enumerate(NAMES)}
    level = torch.cat([damping[name].expand(params[name].numel()) for name in NAMES])
    dense = Written(objective, params, batch.flatten(0, 1), level)
    gradient = trees.unflatten(dense.gradient, trees.pick(params, NAMES))
    judge = Judge(network, objective, params, batch, gradient, damping, lambda i: draw_noise(batch[i], f"labels/{i}"))
    invert = judge.invert
    for names in (NAMES[:1], BLOCKS["blocks.1"], NAMES):
        few = []
        for judge.invert in (invert, lambda residual: residual):
            few.append(judge.solve(names, 8, 0.0).residual)
            solution, residual = judge.solve(names, 200, 1e-9)
            torch.testing.assert_close(trees.flatten(solution), dense.solve(names), rtol=1e-6, atol=1e-8)
            assert residual <= 1e-9
        assert few[0] < 0.5 * few[1]
        directions = [invert(trees.pick(gradient, names)), solution]
        flat = [trees.flatten({**trees.zeros(gradient), **direction}) for direction in directions]
        assert judge.rate(directions, solution).tolist() == pytest.approx([dense.rate(d, names) for d in flat])


def test_they_lie_between_0_and_1_and_an_exact_solution_reaches_1(measured):
    found = measured[0]
    values = {name: each.item() for name, each in found.items()}
    assert values.pop("preconditioners/residual/1") < 1e-9
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in values.values())
    for exact in ("oracle/same/1", "oracle_full/same/1/joint"):
        assert values[f"preconditioners/{exact}"] == pytest.approx(1.0)
    assert values["preconditioners/oracle/fresh/1"] < 0.999
    assert values["preconditioners/oracle_full/same/1/joint"] > values["preconditioners/oracle/same/1/joint"]
    assert len({round(values[f"preconditioners/{each['name']}/same/1"], 6) for each in OF}) == len(OF)


def test_the_length_of_a_direction_does_not_matter_and_its_sign_does(measured):
    _, written, directions = measured
    dense, d = written["same"], directions["adamw"]
    assert dense.rate(7 * d, NAMES) == pytest.approx(dense.rate(d, NAMES))
    assert dense.rate(-d, NAMES) == 0


def test_only_statistics_are_left_of_a_method():
    rule = isolate(MuonRule(momentum=0.9, weight_decay=0.1, hyperball=False))
    (trial,) = start_trials([Preconditioners(of=[{"name": "m", "use": rule}]).of[0]], {"w": torch.ones(3, 3)})
    gradient = noise({"w": torch.empty(3, 3)}, 1)
    for _ in range(2):
        trial.advance(None, {}, gradient, torch.zeros(1), None)
        first, gradient = trial.direction["w"], trees.scale(gradient, 3.0)
    torch.testing.assert_close(trial.direction["w"], first)


def test_a_model_without_declared_linear_layers_is_refused():
    small = problems.experiment({"kind": "adamw"})
    network = build.build_model(small, "plain")._replace(hidden=frozenset())
    subject = Subject(small, network, lambda: build.build_exact(network), eager, lambda: network)
    with pytest.raises(SpecError, match="remove the metric"):
        build_preconditioners(Preconditioners.model_validate({"kind": "preconditioners", "of": OF[:1]}), subject)
