"""A small study, as run directories: two arms of two seeds, one of them Gauss-Newton, and what else is asked for."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from run_directories import TOKENS, experiment, finished, steps

from gnflow.metrics.samples import lay_out
from gnflow.study.comparison import Comparison, compare
from gnflow.train.journal import Step
from gnflow.train.run import Run

TARGETS = (4.0, 3.5)
Extra = Callable[[int], dict[str, float]]


def course(rate: float, count: int, seed: int) -> list[float]:
    """Held-out losses from 4.9 down towards 3.2."""
    return [3.2 + 1.7 * (1 - rate) ** step + 0.01 * seed * (step > 0) for step in range(count + 1)]


def arm(
    root: Path,
    name: str,
    optimizer: object,
    losses: Sequence[float],
    *,
    seed: int = 0,
    passes: int = 1,
    searched: int = 0,
    batch: int = TOKENS,
    extra: Extra = lambda step: {},
) -> Run:
    """`runs/<name>/seed_<seed>` of a project."""
    records = [
        Step(record.step, record.time, {**record.values, **(extra(record.step) if record.step else {})})
        for record in steps(losses, passes=passes, searched=searched)
    ]
    spec = experiment(optimizer, seed=seed, steps=len(losses) - 1, target={"at_most": 3.5})
    plan = {"tokens/solve": batch, "tokens/search": searched}
    return Run.load(finished(root / "runs" / name / f"seed_{seed}", spec, records, step=plan))


def searched(step: int) -> dict[str, float]:
    """What Gauss-Newton records."""
    return {
        "gn/alpha": 0.5,
        "gn/predicted_decrease": 0.5 / step,
        "gn/actual_decrease": 0.4 / step,
        "gn/gain_ratio": 0.8,
    }


def probed(step: int) -> dict[str, float]:
    """What is recorded where it is asked for."""
    return {
        "dominance/r_min": 2.0,
        "dominance/r_avg": 9.0 + step,
        "loss/text": 4.0,
        "loss/image": 3.0 + 1 / step,
        "conflict/cosine": 0.1 * step,
        "curvature/eigenvalue/ggn_1": 3.0 + step,
        "curvature/eigenvalue/hessian_1": 4.0 + step,
        "preconditioners/residual/1": 0.01,
        **{
            f"preconditioners/{name}/{judge}/{batch}{part}": value / step
            for name, value in (("gradient", 0.1), ("muon", 0.4))
            for judge in ("same", "fresh")
            for batch in (1, 8)
            for part in ("", "/joint", "/blocks.0", "/attention.query")
        },
    }


def with_sheet(run: Run, step: int, prompts: Sequence[str] = ("the digit 1", "<b>two</b>")) -> bytes:
    """A sheet of two pairs of images in the run's directory, and its words and figures; returns the picture."""
    images = np.random.default_rng(step).integers(256, size=(2, 17, 8, 1), dtype=np.uint8)
    shares = {"recognised": 0.25, "captioned": 0.5, "classifier_accuracy": 0.96}
    about = {
        "step": step, "guidance": 3.0, "temperature": 1.0, "seed": 0,
        "figures": {f"samples/{name}": share for name, share in shares.items()},
        "samples": [{"prompt": prompt, "caption": "a 7"} for prompt in prompts],
    }  # fmt: skip
    path = run.directory / "samples" / f"step_{step:08d}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lay_out(images, 2))
    path.with_suffix(".json").write_text(json.dumps(about))
    return path.read_bytes()


def study(root: Path) -> list[Run]:
    """Every chart has something to draw, and one run has samples."""
    (root / ".git").mkdir(parents=True, exist_ok=True)
    runs = [
        arm(root, "full_gn", "gauss_newton", course(0.4, 6, s), seed=s, passes=65, searched=16_384, extra=searched)
        for s in (0, 1)
    ]
    muon = [arm(root, "muon", "muon", course(0.15, 20, s), seed=s, batch=TOKENS // 2, extra=probed) for s in (0, 1)]
    for step in (0, 20):
        with_sheet(muon[0], step)
    return runs + muon


def comparison(root: Path) -> Comparison:
    """Of the whole study."""
    return compare(study(root), TARGETS)
