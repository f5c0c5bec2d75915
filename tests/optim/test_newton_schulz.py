import pytest
import torch
from problems import noise

from gnflow.optim.newton_schulz import ITERATIONS, iterate, orthogonalise

SHAPES = {"square": (12, 12), "wide": (6, 20), "tall": (20, 6), "another wide": (6, 20), "nearly square": (10, 14)}
SETS = tuple(ITERATIONS)
each_set = pytest.mark.parametrize("coefficients", SETS)
# Of singular values of at least 0.01 once |X| = 1, in exact arithmetic.
RANGES = {
    "jordan": (0.6818, 1.1345),
    "polar_express": (0.846, 1.154),
    "you_jiacheng": (0.977, 1.146),
    "cans": (0.815, 1.114),
    "deepseek_v4": (0.9994, 1.0006),
    "convergent": (0.9999, 1.0001),
}
STEPS = {**dict.fromkeys(SETS, 5), "deepseek_v4": 10, "convergent": 12}


def matrices(seed=0, dtype=torch.float32):
    return noise({name: torch.empty(shape, dtype=dtype) for name, shape in SHAPES.items()}, seed)


def polar(x):
    u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ v


def cosine(a, b):
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def decaying(m, n, smallest=1e-3):
    """Singular values from 1 down to `smallest`, in float64."""
    u, v = (torch.linalg.qr(noise({"x": torch.empty(size, m)}, size)["x"].double()).Q for size in (m, n))
    values = torch.logspace(0, torch.tensor(smallest).log10().item(), m, dtype=torch.float64)
    return (u * values) @ v.mT


def plainly(x, polynomials, safety=1.0):
    """The iteration as published, without the Gram matrix's own recursion."""
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x) / (safety * x.norm())
    for a, b, c in polynomials:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def polynomials(coefficients, steps=5):
    own = ITERATIONS[coefficients].polynomials
    return [own[min(step, len(own) - 1)] for step in range(steps)]


@each_set
def test_the_result_is_near_the_polar_factor(coefficients):
    for name, u in orthogonalise(matrices(), STEPS[coefficients], coefficients).items():
        assert cosine(u.double(), polar(matrices()[name])) > 0.98, name


@each_set
def test_singular_values_end_in_the_published_range(coefficients):
    lowest, highest = RANGES[coefficients]

    def factor(tree):
        return orthogonalise(tree, STEPS[coefficients], coefficients)

    for shape in ((8, 16), (8, 40), (40, 8)):
        m, n = sorted(shape)
        x = decaying(m, n, smallest=0.015)
        singular = torch.linalg.svdvals(factor({"x": x if shape == (m, n) else x.mT})["x"])
        assert lowest <= singular.min() <= singular.max() <= highest, shape


def test_polar_express_lifts_singular_values_that_jordan_leaves_small():
    x = decaying(8, 16, smallest=1.5e-3)
    lifted = {name: torch.linalg.svdvals(orthogonalise({"x": x}, 5, name)["x"]).min() for name in SETS}
    assert lifted["jordan"] < 0.65
    assert lifted["polar_express"] > 0.84


@each_set
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6])
def test_the_gram_form_is_the_plain_iteration(coefficients, dtype, tolerance, steps):
    for shape in ((16, 48), (48, 16), (16, 32), (16, 16)):
        m, n = sorted(shape)
        x = decaying(m, n) if shape == (m, n) else decaying(m, n).mT
        expected = plainly(x, polynomials(coefficients, steps), ITERATIONS[coefficients].safety)
        u = orthogonalise({"x": x.to(dtype)}, steps, coefficients)["x"]
        assert u.dtype == dtype
        assert (u.double() - expected).norm() < tolerance * expected.norm(), shape


@each_set
def test_in_bfloat16_the_gram_form_errs_at_most_twice_as_much_as_the_plain_iteration(coefficients):
    for x in (decaying(32, 128), decaying(32, 128, smallest=1e-6), noise({"x": torch.empty(32, 128)}, 1)["x"].double()):
        x = x / x.norm()
        steps = polynomials(coefficients)
        expected = plainly(x, steps)
        (gram,) = iterate([x.bfloat16().unsqueeze(0)], steps)
        plain = plainly(x.bfloat16(), steps)
        assert (gram[0].double() - expected).norm() < 2 * (plain.double() - expected).norm()
        assert torch.linalg.matrix_norm(gram[0].float(), 2) < 1.5  # an iteration that explodes is above 30


@each_set
@pytest.mark.parametrize("steps", [6, 7, 12, 20])
def test_no_number_of_steps_explodes_in_bfloat16(coefficients, steps):
    for smallest in (1e-1, 1e-3, 1e-6):
        for seed in range(3):
            x = decaying(16, 64, smallest) @ torch.linalg.qr(noise({"x": torch.empty(64, 64)}, seed)["x"].double()).Q
            u = orthogonalise({"x": x.float()}, steps, coefficients, "bfloat16")["x"]
            assert torch.linalg.matrix_norm(u, 2) < 1.35


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_products_have_the_type_that_is_asked_for_and_the_result_that_of_the_matrix(dtype):
    x = matrices(dtype=torch.float64)["square"]
    rounded = (x / x.norm()).to(getattr(torch, dtype))
    [plain] = iterate([rounded.unsqueeze(0)], polynomials("jordan"))
    u = orthogonalise({"x": x}, dtype=dtype)["x"]
    assert u.dtype == torch.float64
    torch.testing.assert_close(u, plain[0].double(), atol=2e-2 if dtype == "bfloat16" else 1e-5, rtol=0)
    assert torch.equal(u, u.to(getattr(torch, dtype)).double())
    assert not torch.equal(u, orthogonalise({"x": x})["x"])


def test_empty_matrices_stay_empty_beside_others():
    full = matrices()["wide"]
    found = orthogonalise({"none": torch.empty(0, 4), "w": full, "nothing": torch.empty(2, 3, 0)})
    assert list(found) == ["none", "w", "nothing"]
    torch.testing.assert_close(found["w"], orthogonalise({"w": full})["w"])


def test_the_last_polynomial_repeats_and_a_longer_set_is_cut():
    x = matrices(dtype=torch.float64)["square"]
    for steps in (3, 7):
        expected = plainly(x, polynomials("polar_express", steps), 1.02)
        torch.testing.assert_close(orthogonalise({"x": x}, steps, "polar_express")["x"], expected)


def test_matrices_iterated_on_together_come_out_as_if_alone():
    together = orthogonalise(matrices())
    assert list(together) == list(SHAPES)
    for name, x in matrices().items():
        torch.testing.assert_close(together[name], orthogonalise({name: x})[name], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(8, 4), (4, 12), (5, 5)])
def test_a_stack_is_its_matrices(shape):
    a, b = noise({"a": torch.empty(shape), "b": torch.empty(shape)}, 3).values()
    stacked = orthogonalise({"s": torch.stack([a, b]), "c": a})["s"]
    alone = orthogonalise({"a": a, "b": b})
    torch.testing.assert_close(stacked, torch.stack([alone["a"], alone["b"]]), atol=2e-5, rtol=1e-4)


def test_a_tall_matrix_is_treated_as_its_transpose():
    x = matrices(dtype=torch.float64)["tall"]
    torch.testing.assert_close(orthogonalise({"x": x})["x"], orthogonalise({"x": x.mT})["x"].mT)


@pytest.mark.parametrize("shape", [(4, 6), (4, 12), (12, 4)])
@each_set
def test_a_zero_matrix_stays_and_one_of_low_rank_stays_finite(shape, coefficients):
    zero, flat = torch.zeros(shape), torch.ones(shape)
    assert torch.equal(orthogonalise({"x": zero}, 5, coefficients)["x"], zero)
    assert orthogonalise({"x": flat}, 5, coefficients)["x"].isfinite().all()
