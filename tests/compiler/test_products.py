"""Matrix products of a graph that oneDNN computes."""

import pytest
import torch
from torch._inductor.utils import fresh_cache, run_and_get_code

from gnflow.compiler import products
from gnflow.compiler.products import LEAST
from gnflow.compiler.regions import Compiled

GENERATOR = torch.Generator().manual_seed(0)
M, K, N = 256, 512, 256
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=GENERATOR, dtype=dtype)


@pytest.fixture(params=[True, False], ids=["on AMD", "elsewhere"])
def is_amd(request, monkeypatch):
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param)
    return request.param


@pytest.fixture
def on_amd(monkeypatch):
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)


def compile_and_count(function, *sets):
    """Return (the results for each set of arguments, the number of products of oneDNN in the code)."""
    compiled = Compiled("region", function, "default", fullgraph=True)
    with fresh_cache():
        first, codes = run_and_get_code(compiled, *sets[0])
        results = [first, *(compiled(*given) for given in sets[1:])]
    assert compiled.compilations == [1]
    return results, "".join(codes).count("torch.ops.gnflow.mm.default(")


def assert_exact(function, results, sets):
    for result, given in zip(results, sets, strict=True):
        exact = function(*(each.double() for each in given))
        pairs = zip(result, exact, strict=True) if isinstance(result, tuple) else [(result, exact)]
        for found, wanted in pairs:
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x, a: torch.relu(x @ a), id="a matrix"),
        pytest.param(lambda x, a: torch.relu(x.view(4, -1, K) @ a), id="rows and time"),
        pytest.param(lambda x, a: x @ (a + 1), id="a computed weight"),
        pytest.param(lambda x, a: (x * 2) @ a.t().contiguous().t(), id="a transposed right matrix"),
    ],
)
def test_a_product_with_rows_on_the_left_is_computed_by_onednn_on_amd(function, is_amd):
    sets = [(draw(M, K), draw(K, N)) for _ in range(2)]
    results, count = compile_and_count(function, *sets)
    assert count == is_amd
    assert_exact(function, results, sets)


def test_a_square_is_a_product_of_one_matrix(on_amd):
    sets = [(draw(512, 512),) for _ in range(2)]
    results, count = compile_and_count(lambda x: x @ x, *sets)
    assert count == 1
    assert_exact(lambda x: x @ x, results, sets)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(draw(K, M).t(), draw(K, N), id="a transposed left matrix"),
        pytest.param(draw(M - 1, K), draw(K, N), id="a small one"),
        pytest.param(draw(M * N // 8, K), draw(K, 8), id="few columns"),
        pytest.param(draw(8, K), draw(K, M * N // 8), id="few rows"),
        pytest.param(draw(M, K), draw(K, 2 * N)[:, :N], id="a part of each row of the right matrix"),
        pytest.param(draw(M, K), draw(N, 2 * K)[:, :K].t(), id="a part of each column of the right matrix"),
        pytest.param(draw(M, K, dtype=torch.float64), draw(K, N, dtype=torch.float64), id="float64"),
        pytest.param(draw(M, K, dtype=torch.bfloat16), draw(K, N, dtype=torch.bfloat16), id="bfloat16"),
    ],
)
def test_other_products_are_left_alone(left, right, on_amd):
    assert M * K * N == LEAST
    (result,), count = compile_and_count(torch.mm, (left, right))
    assert count == 0
    torch.testing.assert_close(result, left @ right, rtol=1e-4, atol=1e-4)


def test_products_that_are_concatenated_are_left_alone(on_amd):
    def join(x, a, b):
        return torch.cat([x @ a, (x @ b).view(M, N)], 1), torch.relu(x @ (a + b))

    sets = [(draw(M, K), draw(K, N), draw(K, N)) for _ in range(2)]
    results, count = compile_and_count(join, *sets)
    assert count == 1
    assert_exact(join, results, sets)


def test_the_parts_of_a_weight_are_multiplied_by_mkl(on_amd):
    """oneDNN took 3,946 ms for what MKL did in 4."""
    sets = [(draw(M, K), draw(K, 3 * N)) for _ in range(2)]
    _, count = compile_and_count(lambda x, w: [x @ part for part in w.split(N, 1)], *sets)
    assert count == 0


def test_a_reverse_pass_computes_the_gradient_of_features_by_onednn_and_that_of_weights_by_mkl(on_amd):
    compiled = Compiled("region", lambda x, a: (x @ a).tanh().sum(), "default", fullgraph=True)
    x, a = draw(M, K).requires_grad_(), draw(K, N).requires_grad_()
    with fresh_cache():
        loss, codes = run_and_get_code(lambda: torch.autograd.grad(compiled(x, a), (x, a)))
    assert "".join(codes).count("torch.ops.gnflow.mm.default(") == 2
    assert "".join(codes).count("extern_kernels.mm(") == 1
    exact = x.detach().double().requires_grad_(), a.detach().double().requires_grad_()
    for found, wanted in zip(loss, torch.autograd.grad((exact[0] @ exact[1]).tanh().sum(), exact), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


LAYOUTS = {
    "rows": lambda r, c: draw(r, c),
    "columns": lambda r, c: draw(c, r).t(),
    "part of each row": lambda r, c: draw(r, c + 7)[:, :c],
    "each second column": lambda r, c: draw(r, 2 * c)[:, ::2],
    "each second row and third column": lambda r, c: draw(2 * r, 3 * c)[::2, ::3],
    "one row": lambda r, c: draw(1, c).expand(r, c),
    "one column": lambda r, c: draw(r, 1).expand(r, c),
    "not aligned": lambda r, c: draw(r * c + 3)[3:].view(r, c),
}


@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
def test_the_operator_takes_matrices_of_any_strides(left, right):
    for m, k, n in ((33, 64, 17), (1, 100, 16), (16, 1, 3), (64, 257, 1)):
        a, b = LAYOUTS[left](m, k), LAYOUTS[right](k, n)
        result, exact = torch.ops.gnflow.mm(a, b), a.double() @ b.double()
        assert result.is_contiguous()
        torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def test_the_operator_keeps_its_promises_to_torch():
    torch.library.opcheck(torch.ops.gnflow.mm.default, (draw(8, 16), draw(16, 4)))


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_f": True}, False),
        ({"cpu_name": "Apple M1"}, False),
        ({}, False),
    ],
)
def test_only_what_was_measured_is_preferred(about, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: about)
    assert products.prefers_onednn.__wrapped__() is expected


def test_the_operator_copies_a_right_matrix_with_gaps_and_no_other():
    for right, is_copied in ((draw(32, 8), False), (draw(8, 32).t(), False), (draw(32, 16)[:, :8], True)):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            torch.ops.gnflow.mm(draw(16, 32), right)
        assert any(event.key == "aten::copy_" for event in seen.key_averages()) == is_copied


def test_caches_tell_the_two_machines_apart(monkeypatch):
    names = []
    for preferred in (True, False):
        monkeypatch.setattr(products, "prefers_onednn", lambda preferred=preferred: preferred)
        names.append(products.UseOneDNN().uuid())
    assert names[0] != names[1]
