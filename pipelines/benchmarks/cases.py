"""What is timed against what: two functions without arguments on the same inputs, and the ratio aimed at."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from peers import PEERS, PERIOD, Peer, list_missing
from torch import Tensor, nn

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim import as_torch, muon, soap
from gnflow.optim.eigenbasis import decompose_by_cholesky, decompose_by_householder
from gnflow.optim.muon import orthogonalise
from gnflow.optim.protocol import AnyTransform, copy_code
from gnflow.optim.rmnp import normalise_rows
from gnflow.optim.stacks import Stacks

DECODERS = ((12, 256), (6, 512))
BASES = (128, 256, 512, 1024, 2048)
GRADIENTS = 5
TARGET_MUON, TARGET_MUON_BFLOAT16, TARGET_SOAP, TARGET_RMNP = 0.7, 0.8, 0.6, 1 / 13
SAVINGS: tuple[dict[str, object], ...] = (
    {"refresh": "staggered"},
    {"sides": "shorter"},
    {"block_size": 256},
    {"dtype": "bfloat16"},
    {"sides": "shorter", "dtype": "bfloat16"},
)


class Case(NamedTuple):
    """`ours` against `theirs`, each call worth `steps` steps."""

    what: str
    size: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    steps: int = 1
    target: float | None = None


def cases(device: str, decoders: tuple[tuple[int, int], ...], bases: tuple[int, ...]) -> Iterator[Case]:
    """Lazily: the tensors of one case are gone before those of the next are there."""
    for layers, width in decoders:
        shapes = matrices(layers, width)
        size = f"{layers} layers, width {width}"
        yield _muon(shapes, size, device)
        yield _muon_in_bfloat16(shapes, size, device, compiled=False)
        yield _muon_in_bfloat16(shapes, size, device, compiled=True)
        yield _muon_unstacked(shapes, size, device)
        for name, peer in PEERS.items():
            if name not in list_missing():
                yield _soap(shapes, size, device, name, peer)
        for options in SAVINGS:
            yield _soap_saving(shapes, size, device, options)
        yield _rmnp(shapes, size, device, TARGET_RMNP if width >= 512 else None)
    for size in bases:
        yield _basis(size, device)


def matrices(layers: int, width: int) -> dict[str, tuple[int, int]]:
    """The matrices inside the blocks of a decoder."""
    block = dict.fromkeys(("query", "key", "value", "output"), (width, width))
    block |= {"up": (4 * width, width), "down": (width, 4 * width)}
    return {f"blocks.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}


def _muon(shapes: dict[str, tuple[int, int]], size: str, device: str) -> Case:
    weights, gradients = _draw(shapes, device), [_draw(shapes, device) for _ in range(GRADIENTS)]
    theirs = [nn.Parameter(w.clone()) for w in weights.values()]
    reference = torch.optim.Muon(theirs, lr=1e-3)
    return Case(
        "Muon's update : torch.optim.Muon",
        size,
        stepper(muon(1e-3, weight_decay=0.1), weights, gradients),
        _steps_of(reference, theirs, gradients, 1),
        target=TARGET_MUON,
    )


def _muon_unstacked(shapes: dict[str, tuple[int, int]], size: str, device: str) -> Case:
    """What stacks and compilation alone bring: torch's Muon is in bfloat16, which some CPUs only emulate."""
    weights, gradients = _draw(shapes, device), [_draw(shapes, device) for _ in range(GRADIENTS)]
    alone = [
        stepper(muon(1e-3, weight_decay=0.1), {name: w}, [{name: each[name]} for each in gradients], compiled=False)
        for name, w in weights.items()
    ]
    return Case(
        "Muon's update : the same, matrix by matrix and eager",
        size,
        stepper(muon(1e-3, weight_decay=0.1), weights, gradients),
        lambda: [run() for run in alone],
    )


def _muon_in_bfloat16(shapes: dict[str, tuple[int, int]], size: str, device: str, compiled: bool) -> Case:
    """Both iterate in bfloat16, and both are called as any training loop calls them."""
    weights, gradients = _draw(shapes, device), [_draw(shapes, device) for _ in range(GRADIENTS)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in weights.values()] for _ in range(2))
    return Case(
        f"as_torch(muon(dtype=bfloat16){', compile=True' if compiled else ''}) : torch.optim.Muon",
        size,
        _steps_of(as_torch(muon(1e-3, weight_decay=0.1, dtype="bfloat16"), ours, compiled), ours, gradients, 1),
        _steps_of(torch.optim.Muon(theirs, lr=1e-3), theirs, gradients, 1),
        target=TARGET_MUON_BFLOAT16,
    )


def _soap(shapes: dict[str, tuple[int, int]], size: str, device: str, name: str, peer: Peer) -> Case:
    weights, gradients = _draw(shapes, device), [_draw(shapes, device) for _ in range(GRADIENTS)]
    theirs, period = [nn.Parameter(w.clone()) for w in weights.values()], peer.period
    return Case(
        f"SOAP's {f'mean step over {period}' if period > 1 else 'step, bases at each'} : {name}.SOAP",
        size,
        stepper(soap(1e-3, precondition_frequency=period), weights, gradients, period),
        _steps_of(peer.build(theirs, period), theirs, gradients, period),
        period,
        TARGET_SOAP if name == "pytorch_optimizer" else None,
    )


def _soap_saving(shapes: dict[str, tuple[int, int]], size: str, device: str, options: dict[str, object]) -> Case:
    weights, gradients = _draw(shapes, device), [_draw(shapes, device) for _ in range(GRADIENTS)]
    ours, plain = (
        stepper(soap(1e-3, precondition_frequency=PERIOD, **chosen), weights, gradients, PERIOD)
        for chosen in (options, {})
    )
    told = ", ".join(f"{name}: {value}" for name, value in options.items())
    return Case(f"SOAP's mean step over {PERIOD}, {told} : without", size, ours, plain, PERIOD)


def _rmnp(shapes: dict[str, tuple[int, int]], size: str, device: str, target: float | None) -> Case:
    stacks = Stacks.by_rule(dict.fromkeys(shapes, "matrices"), shapes)
    momentum = stacks.stack(_draw(shapes, device))
    normalised = torch.compile(lambda tree: trees.map_tensors(normalise_rows, tree), dynamic=False)
    iterated = torch.compile(lambda tree: orthogonalise(tree, 5), dynamic=False)
    return Case(
        "RMNP's rows to one : our Newton-Schulz",
        size,
        lambda: normalised(momentum),
        lambda: iterated(momentum),
        target=target,
    )


def _basis(size: int, device: str) -> Case:
    batch = max(1, 512 // size)
    columns = torch.randn(batch, size, 2 * size, device=device)
    factors = columns @ columns.mT
    return Case(
        "basis by CholeskyQR2 : by Householder",
        f"{batch} of {size} x {size}",
        lambda: decompose_by_cholesky(factors),
        lambda: decompose_by_householder(factors),
    )


def stepper(
    transform: AnyTransform, params: Params, gradients: list[Params], steps: int = 1, compiled: bool = True
) -> Callable[[], object]:
    """`steps` updates as a run makes them: stacked, compiled, applied."""
    stacks = Stacks.by_rule(dict.fromkeys(params, "all"), {name: tuple(w.shape) for name, w in params.items()})
    update = torch.compile(copy_code(transform.update), dynamic=False) if compiled else transform.update
    state = transform.init(stacks.stack(params))
    done = 0

    def run() -> None:
        nonlocal params, state, done
        for _ in range(steps):
            stacked = stacks.stack(gradients[done % len(gradients)])
            if transform.refresh is not None:
                state = transform.refresh(stacked, state)
            updates, state = update(stacked, state, stacks.stack(params))
            params = trees.add(params, stacks.unstack(updates))
            done += 1

    return run


def _steps_of(
    optimizer: torch.optim.Optimizer, params: list[nn.Parameter], gradients: list[Params], steps: int
) -> Callable[[], object]:
    done = 0

    def run() -> None:
        nonlocal done
        for _ in range(steps):
            for p, gradient in zip(params, gradients[done % len(gradients)].values(), strict=True):
                p.grad = gradient
            optimizer.step()
            done += 1

    return run


def _draw(shapes: dict[str, tuple[int, int]], device: str) -> dict[str, Tensor]:
    return {name: 0.02 * torch.randn(shape, device=device) for name, shape in shapes.items()}
