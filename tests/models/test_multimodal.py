from math import log

import multimodal
import pytest
import torch
from multimodal import CODES, KINDS, PATCH, PLACEHOLDER, TEXT, VOCABULARY
from problems import noise

from gnflow import trees
from gnflow.groups import GROUPS
from gnflow.models.decoder import build_decoder
from gnflow.models.loss import compute_cross_entropy, split
from gnflow.models.modality import keep_modality
from gnflow.spec.model import Decoder


@pytest.mark.parametrize("kind", KINDS)
def test_flash_and_plain_attention_agree(kind):
    plain, flash = multimodal.small(kind), multimodal.small(kind, "flash")
    inputs, _ = plain.model.split(plain.tokens)
    torch.testing.assert_close(
        plain.model.compute_logits(plain.params, inputs), flash.model.compute_logits(flash.params, inputs)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_position_sees_the_future(kind):
    problem = multimodal.small(kind)
    changed = torch.cat((problem.tokens[:, :3], multimodal.tokens(kind, 4, seed=5)[:, 3:]), dim=1)
    before, after = (problem.model.compute_logits(problem.params, tokens) for tokens in (problem.tokens, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_declared_weight_shapes_the_logits_and_is_in_one_block(kind, tied):
    problem = multimodal.small(kind, tie_embeddings=tied)
    owned = [name for names in problem.model.blocks.values() for name in names]
    assert sorted(owned) == sorted(problem.params)
    base = problem.model.compute_logits(problem.params, problem.tokens)
    for name, weight in problem.params.items():
        moved = problem.model.compute_logits(
            {**problem.params, name: weight + noise({name: weight}, 9)[name]}, problem.tokens
        )
        assert not torch.allclose(base, moved), name


@pytest.mark.parametrize("width", [8, 64, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_model_starts_near_a_uniform_guess_at_every_width(kind, width):
    model = multimodal.network(kind, tie_embeddings=True, width=width, hidden=None)
    tokens = multimodal.tokens(kind, 64)
    inputs, targets = model.split(tokens)
    params = model.init(0)
    logits = model.compute_logits(params, inputs)[..., :TEXT]
    text = (targets.ids < TEXT) & (targets.ids != PLACEHOLDER)
    loss = torch.nn.functional.cross_entropy(logits[text], targets.ids[text])
    assert abs(loss.item() - log(TEXT)) < 0.5


def test_emu3_is_the_decoder_over_the_joint_vocabulary():
    problem = multimodal.small("emu3")
    twin = build_decoder(Decoder.model_validate(multimodal.SHAPE), VOCABULARY, "plain")
    assert twin.weights == problem.model.weights
    assert twin.hidden == problem.model.hidden
    inputs, targets = problem.model.split(problem.tokens)
    found = problem.model.compute_logits(problem.params, inputs)
    assert torch.equal(found, twin.compute_logits(problem.params, split(problem.tokens[..., 0])[0]))
    assert torch.equal(targets.ids, problem.tokens[:, 1:, 0])


def test_targets_weigh_by_their_group():
    for kind, image in (("emu3", 0.25), ("janus", 1.0)):
        model = multimodal.network(kind, **({"image_weight": image} if kind == "emu3" else {}))
        groups = torch.arange(len(GROUPS) + 1)
        tokens = torch.stack((torch.zeros_like(groups), groups), dim=-1)[None]
        _, targets = model.split(tokens)
        expected = [image if group.modality == "image" else 1.0 for group in GROUPS]
        assert targets.weights.tolist() == [expected]
        assert targets.groups.tolist() == [groups[1:].tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_made_of_those_of_its_modalities_by_their_weights(kind):
    problem = multimodal.small(kind)

    def loss_and_weight(tokens):
        inputs, targets = problem.model.split(tokens)
        return compute_cross_entropy(
            problem.model.compute_logits(problem.params, inputs), targets
        ), targets.weights.sum()

    whole, total = loss_and_weight(problem.tokens)
    parts = [loss_and_weight(keep_modality(problem.tokens, modality)) for modality in ("text", "image")]
    assert sum(weight for _, weight in parts) == total
    torch.testing.assert_close(sum(loss * weight for loss, weight in parts) / total, whole)


def janus_logits(params, ids, pixels):
    """One row, position by position, the blocks aside."""
    rows = []
    for token, patch in zip(ids.tolist(), pixels, strict=True):
        if token >= TEXT:
            code = params["generation.codes.weight"][token - TEXT]
            rows.append(mlp(params, "generation.adaptor", code))
        elif token == PLACEHOLDER:
            seen = params["understanding.encoder.weight"] @ (2 * patch.double() / 255 - 1)
            rows.append(mlp(params, "understanding.adaptor", seen + params["understanding.encoder.bias"]))
        else:
            rows.append(params["embedding.weight"][token])
    return torch.stack(rows)


def mlp(params, name, x):
    x = torch.nn.functional.gelu(params[f"{name}.first.weight"] @ x + params[f"{name}.first.bias"])
    return params[f"{name}.second.weight"] @ x + params[f"{name}.second.bias"]


def test_janus_reads_pixels_and_writes_codes_by_paths_of_their_own():
    # Without blocks, what comes in is what the heads see.
    problem = multimodal.small("janus", layers=1)
    silent = {n: torch.zeros_like(w) if n.startswith("blocks.") and "scale" not in n else w
              for n, w in problem.params.items()}  # fmt: skip
    found = problem.model.compute_logits(silent, problem.tokens)
    for row, tokens in zip(found, problem.tokens, strict=True):
        x = janus_logits(silent, tokens[:, 0], tokens[:, 2:])
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * silent["norm.scale"]
        image = torch.stack([mlp(silent, "image_head", position) for position in x])
        torch.testing.assert_close(row, torch.cat((x @ silent["head.weight"].T, image), dim=-1))
    assert found.shape[-1] == VOCABULARY
    assert problem.tokens.shape[-1] == 2 + PATCH


def test_janus_gives_matrix_methods_what_leads_from_features_to_features():
    model = multimodal.network("janus")
    outside = {name for name in model.hidden if not name.startswith("blocks.")}
    assert outside == {
        "understanding.adaptor.first.weight", "understanding.adaptor.second.weight",
        "generation.adaptor.second.weight", "image_head.first.weight",
    }  # fmt: skip
    assert list(model.blocks) == [
        "embedding", "understanding", "generation", "blocks.0", "blocks.1", "head", "image_head",
    ]  # fmt: skip
    assert model.weights["image_head.second.weight"].shape == (CODES, 8)


def test_the_losses_of_janus_modalities_do_not_meet_in_its_heads():
    problem = multimodal.small("janus")

    def slope(modality):
        def loss(params):
            inputs, targets = problem.model.split(keep_modality(problem.tokens, modality))
            return compute_cross_entropy(problem.model.compute_logits(params, inputs), targets)

        return torch.func.grad(loss)(problem.params)

    text, image = slope("text"), slope("image")
    assert not image["head.weight"].any()
    assert not text["image_head.second.weight"].any()
    assert all(text[name].any() and image[name].any() for name in problem.model.blocks["blocks.0"])


def test_a_frozen_part_is_named_by_its_weights():
    model = multimodal.network("janus", freeze=["decoder", "text"])
    assert model.frozen == {n for n in model.weights if n.startswith(("blocks", "norm", "embedding", "head"))}
    assert set(model.moving) == set(model.weights) - model.frozen
    assert trees.pick(dict(model.weights), model.moving)
