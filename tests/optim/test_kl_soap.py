import pytest
import torch
from problems import noise
from updates import follow

from gnflow.optim import kl_soap, soap

# Square: a first gradient that is tall or wide leaves null spaces whose basis is anyone's.
SIDE = 6


def given(step, scale=1.0):
    return {"w": scale * noise({"w": torch.empty(SIDE, SIDE, dtype=torch.float64)}, 50 + step)["w"]}


def test_the_factors_follow_the_formula():
    """Both sides from the old values, whitened by the diagonals of the factors in their bases."""
    fading, eps = 0.8, 1e-3
    _, states = follow(kl_soap(shampoo_beta=fading, eps=eps, precondition_frequency=2), 6, given)
    rms = given(0)["w"].square().mean().sqrt()
    left = right = rms * torch.eye(SIDE, dtype=torch.float64)
    bases = torch.eye(SIDE, dtype=torch.float64), torch.eye(SIDE, dtype=torch.float64)
    for step, state in enumerate(states):
        g = given(step)["w"]
        # The bases in use at this step were renewed before it.
        bases = (state.left_basis["w"], state.right_basis["w"])
        lam_left = torch.diagonal(bases[0].T @ left @ bases[0]).clamp(min=eps)
        lam_right = torch.diagonal(bases[1].T @ right @ bases[1]).clamp(min=eps)
        inverse_left = bases[0] @ torch.diag(1 / lam_left) @ bases[0].T
        inverse_right = bases[1] @ torch.diag(1 / lam_right) @ bases[1].T
        left, right = (
            fading * left + (1 - fading) / SIDE * g @ inverse_right @ g.T,
            fading * right + (1 - fading) / SIDE * g.T @ inverse_left @ g,
        )
        torch.testing.assert_close(state.left["w"], left, atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(state.right["w"], right, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_bases_do_not_depend_on_the_scale_of_the_gradients(scale):
    _, plain = follow(kl_soap(eps=1e-30, precondition_frequency=1), 5, given)
    _, scaled = follow(
        kl_soap(eps=1e-30, precondition_frequency=1), 5, lambda step: given(step, scale)
    )  # fmt: skip
    for one, two in zip(plain, scaled, strict=True):
        torch.testing.assert_close(two.left["w"], scale * one.left["w"], atol=0, rtol=1e-6)
        products = one.left_basis["w"].T @ two.left_basis["w"]
        torch.testing.assert_close(products.abs(), torch.eye(SIDE, dtype=torch.float64), atol=1e-6, rtol=0)


def test_given_the_covariance_of_a_kronecker_product_the_factors_are_its_own():
    """Columns and rows of the noise are coloured by known roots; SOAP's factors are, too, but of another size."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.logspace(0, -1, SIDE, dtype=torch.float64)

    def coloured(step):
        noise = torch.randn(SIDE, SIDE, generator=generator, dtype=torch.float64)
        return {"w": spread.sqrt().unsqueeze(1) * noise * spread.flip(0).sqrt()}

    _, states = follow(kl_soap(shampoo_beta=0.99, precondition_frequency=1), 600, coloured)
    left, right = (torch.diagonal(side["w"]) for side in (states[-1].left, states[-1].right))
    found = left.unsqueeze(1) * right
    expected = spread.unsqueeze(1) * spread.flip(0)
    assert (found / expected).log().abs().max() < 0.6
    assert abs((found / expected).log().mean()) < 0.2


def test_a_matrix_with_one_basis_has_soaps_factor_over_the_other_side():
    options = {"max_precondition_dim": 6, "shampoo_beta": 0.9, "precondition_frequency": 1}

    def wide(step):
        return noise({"w": torch.empty(4, 9, dtype=torch.float64)}, step)

    (ours, states), (theirs, others) = follow(kl_soap(**options), 4, wide), follow(soap(**options), 4, wide)
    assert not states[-1].right
    torch.testing.assert_close(9 * states[-1].left["w"], others[-1].left["w"])
    torch.testing.assert_close(ours[-1], theirs[-1], atol=1e-9, rtol=1e-6)


def test_before_its_factors_differ_it_moves_as_soap_does():
    """The first basis of both is that of the first gradient: of G G', whatever multiple of the identity is added."""
    (ours, _), (theirs, _) = follow(kl_soap(), 5, given), follow(soap(), 5, given)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-6)


def test_a_fresh_renewal_sees_the_gradient_that_is_about_to_be_projected():
    transform = kl_soap(precondition_frequency=1, fresh_factors=True)
    stale = kl_soap(precondition_frequency=1)
    _, states = follow(stale, 3, given)
    fresh, old = transform.refresh(given(3), states[-1]), stale.refresh(given(3), states[-1])
    assert not torch.allclose(fresh.left_basis["w"], old.left_basis["w"])
    other = transform.refresh(given(4), states[-1])
    assert not torch.allclose(fresh.left_basis["w"], other.left_basis["w"])
