"""The kernels of a graph in shared libraries."""

import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from gnflow.compiler import libraries
from gnflow.compiler.regions import Compiled

KERNELS = 6


def mix(w, x):
    """Take a kernel before, between and after five products, no two of them alike."""
    for k in range(5):
        x = torch.softmax(torch.tanh(x * (k + 2)) @ w + x.sum(-1, keepdim=True), -1)
    return torch.exp(x)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Compile with nothing cached."""
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    with fresh_cache(dir=str(tmp_path)):
        yield tmp_path
    torch._dynamo.reset()


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 8, generator=generator), torch.randn(5, 8, generator=generator)


def compile_mix():
    return Compiled("mix", mix, "default", fullgraph=True)


def count_libraries(folder):
    return len(list(folder.rglob("*.main.so")))


def test_kernels_share_a_library_and_have_the_bits_of_kernels_apart(cache, monkeypatch):
    together = compile_mix()
    shared = [together(*draw(seed)) for seed in (0, 1)]
    assert count_libraries(cache) == 1
    monkeypatch.setattr(libraries, "share_libraries", nullcontext)
    torch._dynamo.reset()
    from torch._inductor.utils import fresh_cache

    (cache / "apart").mkdir()
    with fresh_cache(dir=str(cache / "apart")):
        apart = compile_mix()
        for seed, expected in enumerate(shared):
            assert torch.equal(apart(*draw(seed)), expected)
            torch.testing.assert_close(expected, mix(*draw(seed)))
        assert count_libraries(cache / "apart") == KERNELS


@pytest.mark.parametrize("threads", [1, 2])
def test_many_kernels_are_divided_among_libraries(cache, monkeypatch, threads):
    from torch._inductor import config

    monkeypatch.setattr(libraries, "MANY", 2)
    with config.patch(compile_threads=threads):
        region = compile_mix()
        torch.testing.assert_close(region(*draw(0)), mix(*draw(0)))
    assert count_libraries(cache) == 3


def test_a_second_library_is_built_at_the_same_time_if_there_is_enough_for_both(cache, monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(libraries, "FEW", 2)
    with config.patch(compile_threads=2):
        region = compile_mix()
        torch.testing.assert_close(region(*draw(1)), mix(*draw(1)))
    assert count_libraries(cache) == 2


SCALE = '#include <torch/csrc/inductor/cpp_prefix.h>\nextern "C"  void  kernel(float* x) { x[0] *= %s; }\n'


def test_a_kernel_in_another_form_is_left_to_inductor(cache):
    together = libraries.Together()
    included = "#include <cmath>\n" + SCALE % "std::sqrt(16.0f)"
    scope = {
        "three": together.cpp_pybinding(["float*"], SCALE % "3"),
        "four": together.cpp_pybinding(["float*"], included),
        "two": together.cpp_pybinding(["float*"], SCALE % "2"),
        "other": 7,
    }
    together.wait(scope)
    x = torch.ones(1)
    for name, product in (("three", 3), ("four", 12), ("two", 24)):
        scope[name](x)
        assert x.item() == product
    assert scope["other"] == 7
    assert count_libraries(cache) == 2
    with pytest.raises(RuntimeError, match="requires 1 args"):
        scope["two"](x, x)


def test_an_error_in_a_kernel_is_an_exception(cache):
    together = libraries.Together()
    body = SCALE.replace("x[0] *= %s;", 'TORCH_CHECK(x[0] < 2, "too large");')
    scope = {"check": together.cpp_pybinding(["float*"], body)}
    together.wait(scope)
    scope["check"](torch.ones(1))
    with pytest.raises(RuntimeError, match="too large"):
        scope["check"](torch.full((1,), 3.0))


PROGRAM = """
import torch
from gnflow.compiler import libraries
from gnflow.compiler.regions import Compiled
from tests.compiler.test_libraries import draw, mix
region = Compiled("mix", mix, "default", fullgraph=True)
print(region(*draw(0)).double().sum().item())
"""


def test_another_process_finds_the_library(cache):
    results = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert count_libraries(cache) == 1
