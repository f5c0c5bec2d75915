"""Gradients that the code of arXiv:2510.09378 computed (natalieabreu/full-gauss-newton @ 0c14e7e), in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from problems import build

from gnflow.models.decoder import build_decoder
from gnflow.spec.model import Decoder

FIXTURE = Path(__file__).parents[1] / "fixtures" / "gauss_newton_reference.npz"


@pytest.mark.parametrize("objective", ["quadratic", "prox_linear"])
def test_gradients_are_those_of_the_authors_code(objective: str) -> None:
    found = np.load(FIXTURE)
    sets = {
        part: {
            name.removeprefix(f"{part}/"): torch.from_numpy(found[name]).float()
            for name in found.files
            if name.startswith(f"{part}/")
        }
        for part in ("anchor", "params", objective)
    }
    spec = Decoder.model_validate({"layers": 2, "width": 32, "heads": 4, "feedforward": "gelu_tanh"})
    model = build_decoder(spec, 64, "plain")
    tokens = torch.from_numpy(found["tokens"].astype(np.int64))
    gradient, _ = build(model, objective).curved(sets["params"], sets["anchor"], tokens)
    assert gradient.keys() == sets[objective].keys()
    for name, expected in sets[objective].items():
        assert (gradient[name] - expected).norm() <= 1e-6 * expected.norm(), name
