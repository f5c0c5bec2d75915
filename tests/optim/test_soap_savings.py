"""SOAP's options that save work, each against the formula in float64, written out for one matrix."""

from collections.abc import Callable
from itertools import count

import pytest
import torch
from problems import noise
from torch import Tensor

from gnflow.optim import soap
from gnflow.optim.bases import find_divisor

RATE, BETA, EPS, DECAY, PERIOD, STEPS = 3e-3, 0.95, 1e-8, 0.01, 3, 12
# Sides with a basis are not longer than the others: a first gradient of lower rank leaves null spaces.
SHAPES = {"square": (12, 12), "wide": (6, 20), "tall": (20, 6), "stack": (3, 8, 8)}


def draw(step: int, *names: str) -> dict[str, Tensor]:
    drawn = noise({name: torch.empty(shape, dtype=torch.float64) for name, shape in SHAPES.items()}, 100 + step)
    return {name: drawn[name] for name in names}


def follow(names: tuple[str, ...], **options: object) -> dict[str, Tensor]:
    transform = soap(RATE, precondition_frequency=PERIOD, **options)
    params = draw(-1, *names)
    state = transform.init(params)
    for step in range(STEPS):
        state = transform.refresh(draw(step, *names), state)
        updates, state = transform.update(draw(step, *names), state, params)
        params = {name: w + updates[name] for name, w in params.items()}
    return params


def exactly(x: Tensor) -> Tensor:
    return x


def to_bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def formula(
    w: Tensor,
    gradients: list[Tensor],
    offsets: tuple[int | None, int | None] = (0, 0),
    rounded: Callable[[Tensor], Tensor] = exactly,
) -> Tensor:
    """W after all gradients. A side is renewed `offset` calls after the first call of a period; None: never."""
    factors = [torch.zeros(size, size, dtype=torch.float64) for size in w.shape]
    bases = [torch.eye(size, dtype=torch.float64) for size in w.shape]
    first, second = torch.zeros_like(w), torch.zeros_like(w)

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        return rounded(rounded(a) @ rounded(b))

    def turn(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        x = x if offsets[0] is None else multiply(left, x)
        return x if offsets[1] is None else multiply(x, right)

    for t, g in enumerate(gradients):
        for side, offset in enumerate(offsets):
            if offset is None or t == 0 or (t > 1 and (t - 1) % PERIOD != offset):
                continue
            old, order = bases[side], torch.arange(len(bases[side]))
            if t == 1:
                new = torch.linalg.eigh(factors[side]).eigenvectors.flip(-1)
            else:
                order = (old.T @ factors[side] @ old).diagonal().argsort(descending=True)
                new = torch.linalg.qr(factors[side] @ old[:, order]).Q
            turned = new.T @ old
            first = turned @ first if side == 0 else first @ turned.T
            second = second[order] if side == 0 else second[:, order]
            bases[side] = new
        if t:
            x = turn(g, bases[0].T, bases[1])
            first, second = BETA * first + (1 - BETA) * x, BETA * second + (1 - BETA) * x**2
            u = turn(first / (second.sqrt() + EPS), bases[0], bases[1].T)
            w = (1 - RATE * DECAY) * (w - RATE * (1 - BETA**t) ** -0.5 * u)
        products = multiply((1 - BETA) * g, g.T), multiply((1 - BETA) * g.T, g)
        factors = [BETA * factor + product for factor, product in zip(factors, products, strict=True)]
    return w


def expect(name: str, *arguments: object) -> Tensor:
    return formula(draw(-1, name)[name], [draw(step, name)[name] for step in range(STEPS)], *arguments)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_staggered_bases_are_each_renewed_in_their_own_update() -> None:
    numbers = count()
    ours = follow(("square", "stack"), refresh="staggered")
    offsets = [[next(numbers) % PERIOD for _ in range(1 + SHAPES["stack"][0])] for _ in ("left", "right")]
    assert len({tuple(pair) for pair in zip(*offsets, strict=True)}) == PERIOD
    assert_close(ours["square"], expect("square", (offsets[0][0], offsets[1][0])))
    stacks = [draw(step, "stack")["stack"] for step in range(-1, STEPS)]
    for i in range(3):
        own = formula(stacks[0][i], [g[i] for g in stacks[1:]], (offsets[0][i + 1], offsets[1][i + 1]))
        assert_close(ours["stack"][i], own)


def test_the_shorter_side_alone_has_a_basis() -> None:
    ours = follow(("square", "wide", "tall"), sides="shorter")
    assert_close(ours["square"], expect("square", (0, None)))
    assert_close(ours["wide"], expect("wide", (0, None)))
    assert_close(ours["tall"], expect("tall", (None, 0)))


@pytest.mark.parametrize("refresh", ["together", "staggered"])
def test_blocks_are_matrices_of_their_own(refresh: str) -> None:
    ours = follow(("square", "stack"), block_size=6, refresh=refresh)  # the stack's have sides of 4
    for name, size in (("square", 6), ("stack", 4)):
        whole = [draw(step, name)[name].reshape(-1, *SHAPES[name][-2:]) for step in range(-1, STEPS)]
        found = ours[name].reshape(whole[0].shape)
        if refresh == "together":
            for k, i, j in ((k, i, j) for k in range(len(found)) for i in range(2) for j in range(2)):
                at = (k, slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size))
                assert_close(found[at], formula(whole[0][at], [g[at] for g in whole[1:]]))
        else:
            at = (0, slice(size, 2 * size), slice(size))  # the third block, of 4 in the square and 12 in the stack
            number = 2 if name == "square" else 4 + 2
            offsets = (number % PERIOD, (number + 16) % PERIOD)
            assert_close(found[at], formula(whole[0][at], [g[at] for g in whole[1:]], offsets))


def test_blocks_of_the_shorter_side_keep_the_other_side_whole() -> None:
    ours = follow(("wide",), block_size=3, sides="shorter")["wide"]
    steps = [draw(step, "wide")["wide"] for step in range(-1, STEPS)]
    for at in (slice(3), slice(3, 6)):
        assert_close(ours[at], formula(steps[0][at], [g[at] for g in steps[1:]], (0, None)))


def test_a_block_is_as_long_as_the_largest_divisor() -> None:
    assert [find_divisor(size, 8) for size in (5, 8, 12, 16, 13)] == [5, 8, 6, 8, 1]


def test_bfloat16_rounds_the_factors_of_products_and_the_products() -> None:
    ours = follow(("square",), dtype="bfloat16")["square"]
    start, rounded, exact = draw(-1, "square")["square"], expect("square", (0, 0), to_bfloat16), expect("square")
    moved = (exact - start).norm()
    assert (ours - rounded).norm() < 2e-3 * moved < 0.2 * (rounded - exact).norm()
    assert (ours - exact).norm() < 0.1 * moved


def test_an_option_without_such_a_value_is_refused() -> None:
    for option in ({"refresh": "never"}, {"sides": "left"}, {"dtype": "float16"}):
        with pytest.raises(ValueError, match=f"soap's {next(iter(option))} is"):
            soap(**option)
