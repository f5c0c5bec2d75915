"""K-FAC, EK-FAC and KFOC against the Gauss-Newton matrix written out, and against products with unit vectors."""

import multimodal
import problems
import pytest
import torch

from gnflow.compiler import build
from gnflow.compiler.plan import plan
from gnflow.curvature import staged
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.curvature.staged import Thrift
from gnflow.errors import SpecError
from gnflow.objective import Watch
from gnflow.optim import as_torch, kfac, kronecker, newton_muon
from gnflow.optim.observation import collect_for
from gnflow.optim.stacks import Stacks


def write_out(objective, params, name, tokens):
    """The block of one weight in the Gauss-Newton matrix, in the order of its rows: (mn, mn)."""
    units = torch.eye(params[name].numel(), dtype=torch.float64)
    columns = [objective.product({name: u.view_as(params[name])}, params, tokens)[name].flatten() for u in units]
    return torch.stack(columns, 1)


def observed(transform, params, names, tokens, objective, noises, observations=1):
    """The state after observations, with the mean over these noises as the noises of as many micro-batches."""
    stacks = Stacks.by_rule(dict.fromkeys(names, "all"), {name: params[name].shape for name in names})
    state = transform.init(stacks.stack(params))
    batch = tokens.expand(len(noises), *tokens.shape)
    for _ in range(observations):
        collect = collect_for(objective.build_model(params), stacks, batch, lambda m: noises[m])
        state = transform.signals.observe(collect, state)
    return stacks, state


def list_places(stacks):
    return [(name, stack, k) for stack, names in stacks.members.items() for k, name in enumerate(names)]


ONE, OTHER = torch.tensor([[0.1, 0.1]]), torch.tensor([[0.1, 0.9]])


@pytest.mark.parametrize("kronecker", ["expand", "reduce", "frobenius"])
def test_for_one_token_the_product_of_the_factors_is_the_matrix(kronecker):
    network, params, tokens = problems.small()
    objective, tokens = build.build_exact(network), tokens[:1, :2]
    names = [name for name in sorted(network.linears) if not name.endswith(("query.weight", "key.weight"))]
    transform = kfac(form="product", kronecker=kronecker, targets="expanded")
    stacks, state = observed(transform, params, names, tokens, objective, [torch.tensor([[0.3]])])
    for name, stack, k in list_places(stacks)[::3]:
        dense = write_out(objective, params, name, tokens)
        product = torch.kron(state.outputs[stack][k], state.inputs[stack][k])
        torch.testing.assert_close(product, dense, atol=1e-12 * float(dense.abs().max()) + 1e-14, rtol=1e-8)


def test_corrected_is_the_diagonal_of_the_matrix_in_the_eigenbases():
    """Two signs for the two tokens are all there are, so the mean over both has no noise."""
    network, params, tokens = problems.small("swiglu")
    objective, tokens = build.build_exact(network), tokens[:1, :3]
    names = sorted(network.hidden)
    transform = kfac(form="corrected", targets="expanded")
    stacks, state = observed(transform, params, names, tokens, objective, [ONE, OTHER])
    for name, stack, k in list_places(stacks)[::4]:
        dense = write_out(objective, params, name, tokens)
        basis = torch.kron(state.left_basis[stack][k], state.right_basis[stack][k])
        assert (basis.abs() > 0.99).sum() < len(basis) / 2
        expected = (basis.T @ dense @ basis).diagonal()
        found = state.curvature[stack][k].flatten()
        torch.testing.assert_close(found, expected, atol=1e-10 * float(expected.max()), rtol=1e-8)


def test_frobenius_is_the_nearest_kronecker_product():
    """Against the singular value decomposition of the matrix, rearranged."""
    network, params, tokens = problems.small()
    objective, tokens = build.build_exact(network), tokens[:, :2]
    names = [f"blocks.1.{part}.weight" for part in ("attention.output", "feedforward.up")]
    transform = kfac(kronecker="frobenius", targets="expanded", iterations=40)
    stacks, state = observed(transform, params, names, tokens, objective, [torch.full((4, 1), 0.3)])
    _, simple = observed(kfac(targets="expanded"), params, names, tokens, objective, [torch.full((4, 1), 0.3)])
    for name, stack, k in list_places(stacks):
        m, n = params[name].shape
        dense = write_out(objective, params, name, tokens)
        rearranged = dense.view(m, n, m, n).permute(0, 2, 1, 3).reshape(m * m, n * n)
        u, s, v = torch.linalg.svd(rearranged)
        nearest = (s[0] * torch.outer(u[:, 0], v[0])).view(m, m, n, n).permute(0, 2, 1, 3).reshape(m * n, m * n)
        ours = torch.kron(state.outputs[stack][k], state.inputs[stack][k])
        torch.testing.assert_close(ours, nearest, atol=1e-5 * float(nearest.abs().max()), rtol=1e-5)
        plain = torch.kron(simple.outputs[stack][k], simple.inputs[stack][k])
        assert (ours - dense).norm() < 0.99 * (plain - dense).norm()


def test_drawn_labels_give_the_factors_of_all_logits_in_the_mean():
    network, params, tokens = problems.small()
    objective, name = build.build_exact(network), "blocks.1.feedforward.down.weight"
    generator = torch.Generator().manual_seed(0)
    expanded = objective.signals(params, torch.rand(4, 5, generator=generator), watch(name, True), tokens)
    drawn = [
        objective.signals(params, torch.rand(4, 5, generator=generator), watch(name, False), tokens)[name]["outputs"]
        for _ in range(300)
    ]
    off = (torch.stack(drawn).mean(0) - expanded[name]["outputs"]).norm() / expanded[name]["outputs"].norm()
    assert off < 0.15


def watch(name, expanded):
    return Watch({name: kronecker.expand}, expanded)


@pytest.mark.parametrize("form", ["factors", "product", "corrected"])
def test_the_update_is_that_of_dense_algebra(form):
    """With (B + pi^-1 sqrt(l)) U (A + pi sqrt(l)) = G, or the damped product."""
    network, params, tokens = problems.small()
    objective, name = build.build_exact(network), "blocks.0.feedforward.up.weight"
    damping = 0.3
    transform = kfac(1.0, momentum=0.0, nesterov=False, scale="none", form=form, damping=damping)
    stacks, state = observed(transform, params, [name], tokens, objective, [torch.full((4, 5), 0.4)])
    gradient = objective.gradient(params, tokens)[0][name]
    (stack,) = stacks.members
    updates, _ = transform.update({stack: gradient[None]}, state, stacks.stack(params))
    (m, n), a, b = gradient.shape, state.inputs[stack][0], state.outputs[stack][0]
    identity = torch.eye(m * n, dtype=torch.float64)
    if form == "factors":
        level = damping * a.trace() * b.trace() / (m * n)
        pi = ((a.trace() / n) / (b.trace() / m)).sqrt()
        dense = torch.kron(b + torch.eye(m) * level.sqrt() / pi, a + torch.eye(n) * level.sqrt() * pi)
    elif form == "product":
        dense = torch.kron(b, a) + damping * a.trace() * b.trace() / (m * n) * identity
    else:
        basis = torch.kron(state.left_basis[stack][0], state.right_basis[stack][0])
        c = state.curvature[stack][0].flatten()
        dense = basis @ torch.diag(c + damping * c.mean()) @ basis.T
    expected = -torch.linalg.solve(dense, gradient.flatten())
    torch.testing.assert_close(
        updates[stack][0].flatten(), expected, rtol=1e-7, atol=1e-7 * float(expected.abs().max())
    )


def test_newton_muon_divides_by_the_inputs_before_it_orthogonalises():
    network, params, tokens = problems.small()
    objective, name = build.build_exact(network), "blocks.0.feedforward.up.weight"
    transform = newton_muon(1.0, momentum=0.0, nesterov=False, ridge=0.1, coefficients="convergent", ns_steps=25)
    stacks, state = observed(transform, params, [name], tokens, objective, [torch.full((4, 5), 0.4)] * 2)
    (stack,), gradient = stacks.members, objective.gradient(params, tokens)[0][name]
    updates, _ = transform.update({stack: gradient[None]}, state, stacks.stack(params))
    seen = objective.signals(params, torch.zeros(4, 5), watch(name, False), tokens)[name]["inputs"]
    divided = gradient @ torch.linalg.inv(seen + 0.1 * seen.trace() / len(seen) * torch.eye(len(seen)))
    u, _, v = torch.linalg.svd(divided, full_matrices=False)
    size = max(1.0, gradient.shape[0] / gradient.shape[1]) ** 0.5
    torch.testing.assert_close(updates[stack][0], -size * u @ v, atol=1e-3, rtol=1e-3)


def test_pieces_and_recomputed_stages_give_the_same_signals():
    network, params, tokens = problems.small()
    whole = build.build_exact(network)
    thrifty = staged.build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"], Thrift(2, True))
    asked = Watch(dict.fromkeys(sorted(network.linears), kronecker.reduce))
    draw = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    one, other = (each.signals(params, draw, asked, tokens) for each in (whole, thrifty))
    torch.testing.assert_close(one, other)


def test_a_weight_of_no_linear_layer_is_named():
    network, params, tokens = problems.small("tied")
    with pytest.raises(ValueError, match="no linear map of tokens has the weight embedding"):
        build.build_exact(network).signals(params, torch.zeros(4, 5), watch("embedding.weight", False), tokens)


def test_a_matrix_that_no_tokens_pass_is_refused_when_the_run_is_planned():
    with pytest.raises(SpecError, match=r"generation.adaptor.second.weight is not the weight of such a layer"):
        plan(multimodal.experiment("janus", {"kind": "kfac"}))


def test_the_plan_counts_the_passes_of_an_observation():
    """Two for the power iterations and one for the curvature in the eigenbases, of three micro-batches."""
    method = {"kind": "kfac", "form": "corrected", "kronecker": "frobenius", "estimate_every": 4, "microbatches": 3}
    made = plan(problems.experiment(method))
    assert made.calls["signals"] == 3 * 3 / 4
    assert made.regions["signals"].flops > made.regions["gradient"].flops


def test_a_loop_that_sees_parameters_alone_is_refused():
    with pytest.raises(ValueError, match="looks into linear layers"):
        as_torch(newton_muon(), [torch.nn.Parameter(torch.ones(2, 2))])
