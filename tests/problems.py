"""Small problems shared by tests: decoders in float64 with random weights, and tokens for them."""

from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature import staged
from gnflow.curvature.linearised import BENDS, SURROGATES, Form
from gnflow.curvature.staged import KEEP_ALL, Thrift
from gnflow.metrics.protocol import Moment
from gnflow.models.attention import Kernel
from gnflow.models.decoder import build_decoder
from gnflow.models.model import Model
from gnflow.objective import Objective, Params
from gnflow.spec.experiment import Experiment
from gnflow.spec.model import Decoder

VOCABULARY = 13

VARIANTS = {
    "default": {},
    "swiglu": {"feedforward": "swiglu", "hidden": 12},
    "head norm": {"qk_norm": "head"},
    "no norm": {"qk_norm": "none"},
    "tied": {"tie_embeddings": True},
    "grouped": {"key_value_heads": 1},
    "track 3": {
        "biases": True,
        "feedforward": "relu_squared",
        "qk_norm": "rms",
        "rope_fraction": 0.5,
        "rope_theta": 1024.0**2,
        "embedding_norm": True,
        "logit_cap": 1.5,
        "attention_scale": 0.3,
        "matrix_std": 0.6,
        "zero_outputs": True,
    },
    "grouped head norm": {"key_value_heads": 1, "qk_norm": "head", "feedforward": "swiglu"},
}


class Problem(NamedTuple):
    model: Model
    params: Params
    tokens: Tensor


def small(variant: str = "default", kernel: Kernel = "plain", seed: int = 0) -> Problem:
    """Two layers of width 8, every weight moved off its initial value, four rows of five tokens."""
    spec = Decoder.model_validate({"layers": 2, "width": 8, "heads": 2, "hidden": 10, **VARIANTS[variant]})
    model = build_decoder(spec, VOCABULARY, kernel)
    params = trees.move_along(model.init(seed), noise(model.init(seed), seed + 1), 0.1)
    tokens = torch.randint(VOCABULARY, (4, 6), generator=torch.Generator().manual_seed(seed))
    return Problem(model, trees.map_tensors(lambda w: w.double(), params), tokens)


def build(model: Model, form: Form = "quadratic", thrift: Thrift = KEEP_ALL) -> Objective:
    """Build the objective of a model."""
    return staged.build_objective(model, SURROGATES[form], BENDS[form], thrift)


def moment(
    params: Params, batch: Tensor, objective: Objective | None = None, before: Params | None = None, optimizer=None,
    state=None,
) -> Moment:  # fmt: skip
    """What a metric looks at, outside a run."""
    return Moment(0, params, before or {}, optimizer, state, objective, batch)


def noise(like: Params, seed: int) -> Params:
    """Standard normal tensors in the shapes of `like`."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator).to(w.dtype) for name, w in like.items()}


def experiment(optimizer: dict[str, object], **sections: object) -> Experiment:
    """A tiny run: bytes of any text, width 16, no tracking."""
    training = {"steps": 4, "rows": 2, "start": "scratch", **sections.pop("training", {})}  # type: ignore[arg-type]
    tree = {
        "name": "tiny",
        "model": {"layers": 1, "width": 16, "heads": 2},
        "data": {"kind": "text", "tokenizer": "bytes", "context": 8},
        "optimizer": optimizer,
        "training": training,
        "tracking": "none",
        **sections,
    }
    return Experiment.model_validate(tree)


def token_batch(microbatches: int, seed: int = 0, rows: int = 2, context: int = 8, vocabulary: int = 257) -> Tensor:
    """(microbatches, rows, context + 1) random tokens."""
    return torch.randint(
        vocabulary, (microbatches, rows, context + 1), generator=torch.Generator().manual_seed(seed)
    )  # fmt: skip
