from math import log
from pathlib import Path

import pytest
import torch
from problems import VARIANTS, noise, small
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from gnflow import trees
from gnflow.models.decoder import build_decoder
from gnflow.spec.model import Decoder


@pytest.mark.parametrize("variant", VARIANTS)
def test_flash_and_plain_attention_agree(variant):
    plain, flash = small(variant), small(variant, "flash")
    inputs = plain.tokens[:, :-1]
    torch.testing.assert_close(
        plain.model.compute_logits(plain.params, inputs), flash.model.compute_logits(flash.params, inputs)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_position_sees_the_future(variant):
    problem = small(variant)
    changed = problem.tokens.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % 13
    before, after = (problem.model.compute_logits(problem.params, tokens) for tokens in (problem.tokens, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_declared_weight_shapes_the_logits(variant):
    problem = small(variant)
    base = problem.model.compute_logits(problem.params, problem.tokens)
    for name, weight in problem.params.items():
        moved = problem.model.compute_logits(
            {**problem.params, name: weight + noise({name: weight}, 9)[name]}, problem.tokens
        )
        assert not torch.allclose(base, moved), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_hold_each_weight_once_and_meta_has_the_same_table(variant):
    problem = small(variant)
    owned = [name for names in problem.model.blocks.values() for name in names]
    assert sorted(owned) == sorted(problem.params)
    assert next(iter(problem.model.blocks)) == "embedding"
    meta = problem.model.init(0, "meta")
    assert {name: w.shape for name, w in meta.items()} == {name: w.shape for name, w in problem.params.items()}
    assert all(w.is_meta for w in meta.values())
    assert problem.model.hidden == {
        name for name in problem.params if name.startswith("blocks.") and name.endswith("weight")
    }


def test_initial_weights_depend_on_seed_and_name_alone():
    short = build_decoder(Decoder(layers=1, width=64), 300, "plain")
    deep = build_decoder(Decoder(layers=2, width=64), 300, "plain")
    a, b = short.init(3), deep.init(3)
    for name in ("embedding.weight", "blocks.0.attention.query.weight", "head.weight"):
        assert torch.equal(a[name], b[name])
    assert not torch.equal(a["head.weight"], short.init(4)["head.weight"])


def test_initial_weights_have_the_reference_deviations():
    params = build_decoder(Decoder(layers=1, width=64), 2000, "plain").init(0)
    deviations = {
        "embedding.weight": 1.0,
        "head.weight": 64**-0.5,
        "blocks.0.feedforward.up.weight": 64**-0.5,
        "blocks.0.feedforward.down.weight": 256**-0.5,
    }
    for name, deviation in deviations.items():
        assert params[name].std().item() == pytest.approx(deviation, rel=0.03), name
    assert torch.equal(params["norm.scale"], torch.ones(64))


@pytest.mark.parametrize("width", [8, 32, 64, 256, 1024])
def test_a_tied_model_starts_near_a_uniform_guess_at_every_width(width):
    """Of real text, whose targets are far from uniform: the tokens of a row share what they are mistaken about."""
    text = torch.tensor(list((Path(__file__).parents[2] / "README.md").read_bytes()[: 16 * 65])).view(16, 65)
    for layers in (1, 3):
        model = build_decoder(Decoder(layers=layers, width=width, heads=2, tie_embeddings=True), 257, "plain")
        loss = cross_entropy(model.compute_logits(model.init(0), text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        assert abs(loss.item() - log(257)) < 0.5


def test_with_llama_options_it_is_llama():
    spec = Decoder(layers=2, width=16, heads=4, key_value_heads=2, feedforward="swiglu", hidden=24, qk_norm="none")
    model = build_decoder(spec, 31, "plain")
    params = trees.map_tensors(lambda w: w + 0.1 * torch.randn_like(w), model.init(0))
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=spec.norm_epsilon, rope_theta=spec.rope_theta, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    names = {
        "embedding.weight": "model.embed_tokens.weight",
        "norm.scale": "model.norm.weight",
        "head.weight": "lm_head.weight",
    }
    parts = {
        "attention.norm.scale": "input_layernorm.weight",
        "feedforward.norm.scale": "post_attention_layernorm.weight",
        "attention.query.weight": "self_attn.q_proj.weight",
        "attention.key.weight": "self_attn.k_proj.weight",
        "attention.value.weight": "self_attn.v_proj.weight",
        "attention.output.weight": "self_attn.o_proj.weight",
        "feedforward.gate.weight": "mlp.gate_proj.weight",
        "feedforward.up.weight": "mlp.up_proj.weight",
        "feedforward.down.weight": "mlp.down_proj.weight",
    }
    names |= {f"blocks.{i}.{ours}": f"model.layers.{i}.{theirs}" for i in range(2) for ours, theirs in parts.items()}
    llama = LlamaForCausalLM(config).eval()
    llama.load_state_dict({names[name]: weight for name, weight in params.items()})
    tokens = torch.randint(31, (3, 7))
    with torch.no_grad():
        torch.testing.assert_close(model.compute_logits(params, tokens), llama(tokens).logits, atol=1e-5, rtol=1e-5)
