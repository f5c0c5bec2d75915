"""What has to hold on a CUDA device; `make gpu` runs these, `make test` does not."""

from pathlib import Path

import pytest
import torch

import gnflow
from gnflow.compiler.program import Program
from gnflow.objective import Params, Tokens
from gnflow.train.reproducible import reproducible
from gnflow.workspace import Workspace

SPEC = """
name: small
model: {{kind: decoder, layers: 2, width: 32, heads: 2}}
data: {{kind: text, tokenizer: bytes, context: 16}}
optimizer: {optimizer}
training: {{steps: 3, rows: 4, device: {device}, start: scratch}}
compile: {{mode: {mode}}}
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


def program(directory: Path, optimizer: str, device: str = "cuda", mode: str = "default") -> Program:
    path = directory / "small.yaml"
    path.write_text(SPEC.format(optimizer=OPTIMIZERS[optimizer], device=device, mode=mode))
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
    assert set(compiled.graphs().values()) == {1}
    assert losses == pytest.approx(trained(program(tmp_path, optimizer, mode="off"))[1], rel=2e-3)


@each_optimizer
def test_the_same_steps_give_the_same_bits_on_the_gpu(optimizer: str, tmp_path: Path) -> None:
    with reproducible(Workspace(tmp_path)):
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
