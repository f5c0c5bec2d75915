"""What has to hold on a CUDA device; `make gpu` runs these, `make test` does not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import gnflow
from gnflow.compiler.program import Program
from gnflow.models.attention import Attention, attend_flash, attend_plain
from gnflow.objective import Params, Tokens
from gnflow.train.reproducible import make_reproducible
from gnflow.workspace import Workspace

SPEC = """
name: small
model: {{kind: decoder, layers: 2, width: 32, heads: 2}}
data: {{kind: text, tokenizer: bytes, context: 16}}
optimizer: {optimizer}
training: {{steps: 3, rows: 4, device: {device}, start: scratch}}
compile: {{mode: {mode}, attention: {attention}}}
tracking: none
"""
OPTIMIZERS = {
    "adamw": "{kind: adamw, microbatches: 2}",
    "muon": "{kind: muon, microbatches: 2}",
    "gauss_newton": "{kind: gauss_newton, inner_steps: 3, search: {kind: geometric, trials: 3, microbatches: 2}}",
    "prox_linear": "{kind: gauss_newton, objective: prox_linear, inner_steps: 3, search: none}",
}
pytestmark = pytest.mark.gpu
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch.compiler.reset()


def program(
    directory: Path, optimizer: str, device: str = "cuda", mode: str = "default", attention: str = "null"
) -> Program:
    path = directory / "small.yaml"
    path.write_text(SPEC.format(optimizer=OPTIMIZERS[optimizer], device=device, mode=mode, attention=attention))
    return gnflow.compile(gnflow.plan(gnflow.load(path)))


def drawn(program: Program, steps: int) -> Tokens:
    shape = (steps, program.plan.microbatches, 4, 17)
    return torch.randint(257, shape, generator=torch.Generator().manual_seed(1))


def trained(program: Program) -> tuple[Params, list[float]]:
    """Parameters, on the CPU, and training losses after a few steps on fixed tokens from the CPU's first weights."""
    state = program.init({name: weight.to(program.device) for name, weight in program.initial().items()})
    losses = []
    for batch in drawn(program, steps=3):
        state, metrics = program.step(state, batch)
        losses.append(float(metrics["loss/train"]))
    return {name: weight.cpu() for name, weight in state.params.items()}, losses


@each_optimizer
def test_a_run_on_the_gpu_follows_the_one_on_the_cpu(optimizer: str, tmp_path: Path) -> None:
    _, gpu = trained(program(tmp_path, optimizer))
    _, cpu = trained(program(tmp_path, optimizer, device="cpu", mode="off"))
    assert gpu == pytest.approx(cpu, rel=2e-3)


@each_optimizer
def test_compiled_equals_eager_on_the_gpu_without_recompiling(optimizer: str, tmp_path: Path) -> None:
    compiled = program(tmp_path, optimizer)
    _, losses = trained(compiled)
    assert set(compiled.count_graphs().values()) == {1}
    assert losses == pytest.approx(trained(program(tmp_path, optimizer, mode="off"))[1], rel=2e-3)


@each_optimizer
def test_the_same_steps_give_the_same_bits_on_the_gpu(optimizer: str, tmp_path: Path) -> None:
    with make_reproducible(Workspace(tmp_path)):
        first, _ = trained(program(tmp_path, optimizer))
        second, _ = trained(program(tmp_path, optimizer))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_the_curved_gradient_on_the_gpu_equals_the_one_on_the_cpu(tmp_path: Path) -> None:
    gpu, cpu = program(tmp_path, "gauss_newton"), program(tmp_path, "gauss_newton", device="cpu", mode="off")
    anchor = cpu.initial()
    for distance in (0.01, 0.02):
        point = {name: weight + distance * torch.randn_like(weight) for name, weight in anchor.items()}
        tokens = drawn(cpu, steps=1)[0, 0]
        expected, value = cpu.objective.curved(point, anchor, tokens)
        there = [{name: weight.cuda() for name, weight in params.items()} for params in (point, anchor)]
        gradient, found = gpu.objective.curved(*there, tokens.cuda())
        torch.testing.assert_close(found.cpu(), value, rtol=1e-4, atol=1e-5)
        for name in expected:
            torch.testing.assert_close(gradient[name].cpu(), expected[name], rtol=1e-3, atol=1e-4)


SHAPES = [(2, 3, 1, 16), (2, 2, 65, 24), (1, 4, 128, 48), (1, 2, 200, 64), (1, 2, 70, 128), (1, 1, 40, 256)]
"""(rows, heads, time, size) of attention."""


def pushed(attention: Attention, parts: list[Tensor]) -> Tensor:
    """The tangent of attention, all six laid out as the trunk lays them out."""
    laid = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in parts]
    return torch.func.jvp(attention, tuple(laid[:3]), tuple(laid[3:]))[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tangent_of_flash_attention_on_the_gpu_is_that_of_plain(shape: tuple[int, ...]) -> None:
    parts = [torch.randn(shape, device="cuda") for _ in range(6)]
    expected = pushed(attend_plain, [part.double() for part in parts])
    torch.testing.assert_close(pushed(attend_flash, parts).double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        pushed(attend_flash, [part.double() for part in parts]), expected, rtol=1e-10, atol=1e-12
    )
    rounded = [part.bfloat16() for part in parts]
    expected = pushed(attend_plain, [part.double() for part in rounded])
    torch.testing.assert_close(pushed(attend_flash, rounded).double(), expected, rtol=3e-2, atol=4e-2)


def test_the_curved_gradient_with_flash_attention_on_the_gpu_is_that_with_plain(tmp_path: Path) -> None:
    expected, eager, compiled = (
        program(tmp_path, "gauss_newton", mode=mode, attention=kernel)
        for mode, kernel in (("off", "plain"), ("off", "flash"), ("default", "flash"))
    )
    anchor, tokens = expected.initial(), drawn(expected, steps=1)[0, 0].cuda()
    for distance in (0.01, 0.02):
        point = {name: weight + distance * torch.randn_like(weight) for name, weight in anchor.items()}
        gradient, value = expected.objective.curved(point, anchor, tokens)
        for other in (eager, compiled):
            found, at = other.objective.curved(point, anchor, tokens)
            torch.testing.assert_close(at, value, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-4)
    assert set(compiled.count_graphs().values()) == {1}


def test_flash_attention_and_its_tangent_take_no_memory_of_time_times_time_on_the_gpu() -> None:
    def peak(attention: Attention, time: int) -> int:
        parts = [torch.randn(1, 2, time, 64, device="cuda") for _ in range(6)]
        pushed(attention, parts)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        pushed(attention, parts)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    assert peak(attend_flash, 4096) < 3 * peak(attend_flash, 2048)
    assert peak(attend_plain, 4096) > 3 * peak(attend_plain, 2048)
    assert peak(attend_flash, 4096) < peak(attend_plain, 4096) / 4
