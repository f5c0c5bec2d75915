"""The options that make a decoder the model of track 3, against the same model in a few lines of plain torch."""

import shutil
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from blocks import in_language
from problems import small
from torch.nn import functional

import gnflow
from gnflow.errors import SpecError
from gnflow.models.decoder import build_decoder
from gnflow.models.huggingface.decoder import write_config
from gnflow.spec.load import load
from gnflow.spec.model import Decoder

ROOT = Path(__file__).parents[2]


def test_logits_are_those_of_the_model_in_plain_torch() -> None:
    problem = small("track 3")
    ids, weights = problem.tokens, problem.params
    width, heads, size = 8, 2, 4
    time = ids.shape[1]

    def norm(x, scale=None):
        return functional.rms_norm(x, x.shape[-1:], scale, eps=1e-6)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def turn(x):  # (rows, time, heads, size): of the pairs (i, i + 2), the first alone turns, by one radian a position
        pairs = torch.complex(x[..., :2].contiguous(), x[..., 2:].contiguous())
        angle = torch.arange(time, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, 0.0])
        turned = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((turned.real, turned.imag), -1)

    x = norm(weights["embedding.weight"][ids], weights["embedding.norm.scale"])
    for layer in ("blocks.0", "blocks.1"):
        n = norm(x, weights[f"{layer}.attention.norm.scale"])
        query, key, value = (
            linear(n, f"{layer}.attention.{side}").view(*ids.shape, heads, size) for side in ("query", "key", "value")
        )
        scores = torch.einsum("rthd,rshd->rhts", turn(norm(query)), turn(norm(key))) * 0.3
        scores = scores + torch.full((time, time), float("-inf"), dtype=torch.float64).triu(1)
        mixed = torch.einsum("rhts,rshd->rthd", scores.softmax(-1), value).reshape(*ids.shape, width)
        x = x + linear(mixed, f"{layer}.attention.output")
        n = norm(x, weights[f"{layer}.feedforward.norm.scale"])
        x = x + linear(linear(n, f"{layer}.feedforward.up").clamp(min=0) ** 2, f"{layer}.feedforward.down")
    z = linear(norm(x, weights["norm.scale"]), "head")
    expected = 1.5 * z / (z**2 + 1.5**2).sqrt()
    # The angles of rotary positions are computed in float32.
    torch.testing.assert_close(problem.model.compute_logits(weights, ids), expected, rtol=0, atol=1e-7)


def test_rotated_pairs_have_the_frequencies_of_the_benchmark() -> None:
    """Its frequencies are 1024^(-i/(n - 1)), i < n: those of base 1024^(n/(n - 1)) here, for n = 32 pairs of 128."""
    from gnflow.models.attention import rotate

    x = torch.zeros(1, 1, 8, 128)
    x[..., :64] = 1
    turned = rotate(x, 1024 ** (32 / 31), 0.5)[0, 0]
    frequency = torch.cat((1024 ** (-torch.arange(32, dtype=torch.float64) / 31), torch.zeros(32)))
    angle = torch.outer(torch.arange(8, dtype=torch.float64), frequency)
    expected = torch.cat((angle.cos(), angle.sin()), -1).float()
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-6)


def test_it_starts_as_the_benchmark_does() -> None:
    spec = Decoder(layers=1, width=64, biases=True, matrix_std=0.33**0.5, zero_outputs=True, embedding_norm=True)
    params = build_decoder(spec, 300, "plain").init(0)
    zero = {name for name, weight in params.items() if not weight.any()}
    outputs = {"blocks.0.attention.output.weight", "blocks.0.feedforward.down.weight", "head.weight"}
    assert zero == outputs | {name for name in params if name.endswith("bias") and "norm" not in name} | {
        f"blocks.0.attention.{side}_norm.bias" for side in ("query", "key")
    }
    assert params["blocks.0.feedforward.up.weight"].std().item() == pytest.approx((0.33 / 64) ** 0.5, rel=0.03)
    assert params["embedding.weight"].std().item() == pytest.approx(1, rel=0.03)
    model = build_decoder(spec, 300, "plain")
    inputs = torch.arange(12).view(1, 12)
    loss = functional.cross_entropy(model.compute_logits(params, inputs).flatten(0, 1), inputs.flatten())
    assert loss.item() == pytest.approx(log(300))


def test_a_tied_decoder_has_a_bias_of_its_head() -> None:
    model = build_decoder(Decoder(layers=1, width=8, heads=2, tie_embeddings=True, biases=True), 13, "plain")
    params, inputs = model.init(0), torch.arange(12).view(1, 12)
    moved = model.compute_logits({**params, "head.bias": torch.ones(13)}, inputs)
    torch.testing.assert_close(moved, model.compute_logits(params, inputs) + 1)
    assert model.blocks["head"] == ("head.bias",)


def test_export_names_the_keys_that_no_class_has() -> None:
    odd = {"biases": True, "rope_fraction": 0.5, "attention_scale": 0.12, "embedding_norm": True, "logit_cap": 15.0}
    with pytest.raises(SpecError) as caught:
        write_config(Decoder.model_validate({"qk_norm": "none", **odd}), 13, 8, None)
    for key, value in odd.items():
        assert f"`{key}: {str(value).lower()}`" in str(caught.value)
    with pytest.raises(SpecError, match="qk_norm is `rms`"):
        write_config(Decoder(qk_norm="rms"), 13, 8, None)
    assert '"relu2"' in write_config(Decoder(qk_norm="none", feedforward="relu_squared"), 13, 8, None)


def test_the_model_of_the_spec_has_as_many_parameters_as_that_of_the_benchmark() -> None:
    spec = load(ROOT / "specs/track3/muon.yaml").experiment
    blocks = 12 * (12 * 768**2 + (4 + 4 + 1) * 768 + 2 * 768)
    around = 2 * 50304 * 768 + 50304 + 2 * 768
    model = build_decoder(spec.model, spec.data.vocabulary, "plain")
    assert sum(weight.numel() for weight in model.init(0, "meta").values()) == blocks + around == 162_354_816


def test_the_small_spec_runs_on_shards_that_the_document_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("common", "track3"):
        shutil.copytree(ROOT / "specs" / folder, tmp_path / "specs" / folder)
    (tmp_path / "dvc.yaml").touch()
    prepared = tmp_path / "data" / "shakespeare-bpe-512-0"
    prepared.mkdir(parents=True)
    for part in ("train", "held_out"):
        np.save(prepared / f"{part}.npy", np.random.default_rng(0).integers(512, size=1000).astype(np.uint16))
    monkeypatch.chdir(tmp_path)
    [block] = [block for block in in_language("python") if block.document == "docs/track3.md"]
    exec(block.text, {})
    assert len(list(Path("data").glob("*.bin"))) == 3
    few = ["training.steps=2", "training.rows=2", "optimizer.microbatches=2", "metrics.0.microbatches=2"]
    sets = [*few, "model.layers=1", "compile.mode=off", "tracking=none"]
    run = gnflow.run(gnflow.load("specs/track3/small.yaml", sets))
    first, last = run.metrics["loss/held_out"].drop_nulls().to_list()
    assert first == pytest.approx(log(512))  # the head starts at zero
    assert last != first
