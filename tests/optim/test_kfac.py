"""K-FAC, EK-FAC and KFOC against the Gauss-Newton matrix written out, and against products with unit vectors."""

import problems
import pytest
import torch

from gnflow.compiler import build
from gnflow.objective import Watch
from gnflow.optim import kfac, kronecker, newton_muon
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
        collect = collect_for(objective, stacks, params, batch, lambda m: noises[m])
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
    assert len(names) > 8
    for name, stack, k in list_places(stacks):
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
    for name, stack, k in list_places(stacks)[::3]:
        dense = write_out(objective, params, name, tokens)
        basis = torch.kron(state.left_basis[stack][k], state.right_basis[stack][k])
        assert (basis.abs() > 0.99).sum() < len(basis) / 2
        expected = (basis.T @ dense @ basis).diagonal()
        found = state.curvature[stack][k].flatten()
        torch.testing.assert_close(found, expected, atol=1e-10 * float(expected.max()), rtol=1e-8)
