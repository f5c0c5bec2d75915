"""AdamW's step on a small decoder, gnflow's and nanoGPT's, both compiled; writes nanogpt.json and nanogpt.md.

    git clone https://github.com/karpathy/nanoGPT
    python pipelines/benchmarks/nanogpt.py nanoGPT

nanoGPT's step is that of its train.py in float32 on one micro-batch: loss, backward, clip at 1, AdamW as it configures
it. gnflow's is a step of a run with the same clip, decay and betas. Calls are interleaved in one process, on one thread
in seconds of the processor, on two by the clock. Both models have one matrix for embedding and head, and the same
matrices in the blocks; nanoGPT's has learned positions and one matrix for queries, keys and values.
"""

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from measure import machine, quartiles  # noqa: E402  # a script's neighbour

from gnflow.compiler.plan import plan  # noqa: E402
from gnflow.compiler.program import compile as make_program  # noqa: E402
from gnflow.spec.experiment import Experiment  # noqa: E402
from gnflow.train.allocator import keep_memory  # noqa: E402

RUNS, WARM_UP, TARGET = 61, 6, 1.0
RATE, DECAY, BETAS, CLIP = 1e-3, 0.1, (0.9, 0.95), 1.0


class Size(NamedTuple):
    """A decoder, and its micro-batch."""

    layers: int
    width: int
    heads: int
    vocabulary: int = 2048
    rows: int = 8
    context: int = 128

    def __str__(self) -> str:
        return f"{self.layers} x {self.width}, {self.vocabulary} words, {self.rows} x {self.context} tokens"


SIZES = (Size(3, 64, 4), Size(4, 256, 4), Size(6, 384, 6))


def main(source: Path, threads: int) -> None:
    """Measure every size with this number of threads, and add the rows to those of other numbers of threads."""
    keep_memory()
    torch.set_num_threads(threads)
    file = HERE / "nanogpt.json"
    kept = [row for row in json.loads(file.read_text())["rows"] if row["threads"] != threads] if file.is_file() else []
    rows = kept + [measure(size, source, threads) for size in SIZES]
    result = {"machine": machine(), "rows": sorted(rows, key=lambda row: row["threads"])}
    file.write_text(json.dumps(result, indent=2) + "\n")
    (HERE / "nanogpt.md").write_text(report(result))
    print(report(result))


def measure(size: Size, source: Path, threads: int) -> dict[str, Any]:
    """Measure milliseconds of interleaved steps, and the ratio of tokens in a second."""
    clock = time.process_time if threads == 1 else time.perf_counter
    steps = {"gnflow": make_step(size), "nanoGPT": make_their_step(size, source)}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(RUNS + WARM_UP):
        for name in steps if i % 2 else reversed(steps):
            start = clock()
            steps[name]()
            found[name].append(1e3 * (clock() - start))
    ours, theirs = (found[name][WARM_UP:] for name in steps)
    return {
        "size": str(size), "threads": threads, "load": os.getloadavg()[0],
        "gnflow": quartiles(ours), "nanoGPT": quartiles(theirs),
        "ratio": statistics.median(theirs) / statistics.median(ours),
    }  # fmt: skip


def make_step(size: Size) -> Callable[[], object]:
    """Make a step of a run of gnflow."""
    tree = {
        "name": "adamw",
        "model": {
            "kind": "decoder",
            "layers": size.layers,
            "width": size.width,
            "heads": size.heads,
            "tie_embeddings": True,
            "qk_norm": "none",
        },
        "data": {"kind": "text", "tokenizer": {"kind": "bpe", "vocabulary": size.vocabulary}, "context": size.context},
        "optimizer": {"kind": "adamw", "learning_rate": RATE, "betas": BETAS, "weight_decay": DECAY, "clip": CLIP},
        "training": {"steps": 1000, "rows": size.rows, "start": "scratch", "device": "cpu"},
        "tracking": "none",
    }
    program = make_program(plan(Experiment.model_validate(tree)))
    state = program.init()
    tokens = torch.randint(size.vocabulary, (1, size.rows, size.context + 1))

    def step() -> None:
        nonlocal state
        state, _ = program.step(state, tokens)

    return step


def make_their_step(size: Size, source: Path) -> Callable[[], object]:
    """Make a step of nanoGPT's train.py."""
    found = importlib.util.spec_from_file_location("nanogpt_model", source / "model.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    config = module.GPTConfig(
        block_size=size.context, vocab_size=size.vocabulary, n_layer=size.layers, n_head=size.heads,
        n_embd=size.width, dropout=0.0, bias=False,
    )  # fmt: skip
    model = module.GPT(config)
    optimizer = model.configure_optimizers(DECAY, RATE, BETAS, "cpu")
    compiled = torch.compile(model)
    tokens = torch.randint(size.vocabulary, (size.rows, size.context + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> None:
        _, loss = compiled(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def report(result: dict[str, Any]) -> str:
    """Write the results in Markdown."""
    about = result["machine"]
    lines = [
        "# AdamW beside nanoGPT", "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}, float32. Milliseconds of a",
        f"step: median, and quartiles in brackets, of {RUNS} interleaved steps. The aim: at least {TARGET}.", "",
        "| size | threads | load | gnflow | nanoGPT | tokens in a second, gnflow : nanoGPT |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in result["rows"]:
        times = (f"{row[who][1]:.1f} ({row[who][0]:.1f} to {row[who][2]:.1f})" for who in ("gnflow", "nanoGPT"))
        lines.append(
            f"| {row['size']} | {row['threads']} | {row['load']:.1f} | {' | '.join(times)} | {row['ratio']:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the folder of a checkout of nanoGPT, and the number of threads (1)")
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
