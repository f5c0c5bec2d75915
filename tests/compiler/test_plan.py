import json
from math import ceil
from pathlib import Path

import pytest
import torch
from problems import experiment

from gnflow.compiler.build import count_pieces
from gnflow.compiler.plan import plan
from gnflow.errors import SpecError
from gnflow.spec.load import load

SPECS = Path(__file__).parents[2] / "specs"

GAUSS_NEWTON = {
    "kind": "gauss_newton",
    "inner": {"kind": "muon", "microbatches": 2},
    "inner_steps": 3,
    "search": {"kind": "geometric", "trials": 4, "microbatches": 5},
}


def test_a_gauss_newton_step_is_counted_exactly():
    planned = plan(experiment(GAUSS_NEWTON))
    assert planned.microbatches == 3 * 2 + 5
    assert (planned.tokens_solve, planned.tokens_search) == (6 * 2 * 8, 5 * 2 * 8)
    assert planned.passes == 3 + 1
    assert planned.calls == {"curved": 6, "update": 3, "value": (4 + 1) * 5, "curved_value": 5}


def test_a_layerwise_step_is_counted_exactly():
    planned = plan(experiment({**GAUSS_NEWTON, "blocks": "layer"}))
    full = plan(experiment(GAUSS_NEWTON))
    assert (planned.tokens_solve, planned.tokens_search, planned.passes) == (
        full.tokens_solve,
        full.tokens_search,
        full.passes,
    )
    assert planned.calls == {
        "curved.embedding": 6,
        "curved.blocks.0": 6,
        "curved.head": 6,
        "curved_value": 5,
        "update.embedding": 6,  # of the head too: one AdamW stack of the same size
        "update.blocks.0": 3,
        "value": (4 + 1) * 5,
    }
    assert set(planned.regions) == set(planned.calls)


@pytest.mark.parametrize("blocks", ["full", "layer"])
def test_a_solve_by_conjugate_gradients_is_counted_exactly(blocks):
    inner = {"kind": "cg", "microbatches": 3, "iterations": 7}
    planned = plan(experiment({**GAUSS_NEWTON, "inner": inner, "inner_steps": 1, "blocks": blocks}))
    assert (planned.cost.solve, planned.cost.search, planned.passes) == (3, 5, 1 + 7 + 1)
    calls = planned.calls
    products = {name: calls[name] for name in calls if name.startswith("product")}
    parts = ["product"] if blocks == "full" else ["product.embedding", "product.blocks.0", "product.head"]
    assert products == dict.fromkeys(parts, 3 * 7)
    assert set(planned.regions) == set(calls)
    assert planned.regions[parts[0]].flops == planned.regions[parts[0].replace("product", "curved")].flops
    assert {row.method for row in planned.parameters} == {"cg"}


def test_blocks_of_one_structure_share_the_regions_of_their_inner_optimizer():
    model = {"layers": 4, "width": 16, "heads": 2}
    planned = plan(experiment({**GAUSS_NEWTON, "blocks": "layer", "inner": "soap"}, model=model))
    calls = planned.calls
    # The final norm makes the last block longer.
    assert {name: calls[name] for name in calls if name.startswith("update")} == {
        "update.embedding": 6,
        "update.blocks.0": 9,
        "update.blocks.3": 3,
    }
    assert calls["refresh.blocks.0"] == pytest.approx(9 / 10)
    assert set(planned.regions) == set(calls)


def test_every_block_has_a_region_with_its_own_share_of_the_work():
    layerwise = {**GAUSS_NEWTON, "blocks": "layer"}
    planned = plan(experiment(layerwise, model={"layers": 1, "width": 128, "heads": 2}))
    assert {name: block.region for name, block in planned.blocks.items()} == {
        "embedding": "curved.embedding",
        "blocks.0": "curved.blocks.0",
        "head": "curved.head",
    }
    assert 1 > planned.blocks["blocks.0"].share > planned.blocks["embedding"].share > planned.blocks["head"].share
    assert planned.calls["curved_value"] == 5
    assert set(planned.regions) == set(planned.calls)
    written = planned.to_json()["blocks"]
    assert written["blocks.0"] == {"region": "curved.blocks.0", "share": planned.blocks["blocks.0"].share}
    assert plan(experiment(GAUSS_NEWTON)).blocks == {}


def test_flops_are_those_of_the_matrix_products():
    planned = plan(experiment({"kind": "adamw", "microbatches": 3}))
    tokens, width, time = 2 * 8, 16, 8
    linear = 12 * width * width + 257 * width
    attention = 2 * 2 * tokens * time * width
    forward = 2 * tokens * linear + attention
    assert planned.regions["value"].flops == forward
    assert planned.regions["gradient"].flops == pytest.approx(3 * forward, rel=0.2)
    assert planned.flops == 3 * planned.regions["gradient"].flops


def test_the_curved_region_costs_five_forward_passes():
    planned = plan(experiment(GAUSS_NEWTON))
    assert planned.regions["curved"].flops / planned.regions["value"].flops == pytest.approx(5, rel=0.02)


def test_with_a_difference_for_the_tangent_it_costs_four_and_takes_fused_attention():
    planned = plan(experiment({**GAUSS_NEWTON, "tangent": "difference"}))
    assert planned.attention == "flash"
    assert planned.regions["curved"].flops / planned.regions["value"].flops == pytest.approx(4, rel=0.1)
    exact_products = {**GAUSS_NEWTON, "tangent": "difference", "search": "decrement"}
    assert plan(experiment(exact_products)).attention == "plain"


def test_attention_follows_from_the_derivatives_taken():
    assert plan(experiment(GAUSS_NEWTON)).attention == "plain"
    assert plan(experiment({"kind": "muon"})).attention == "flash"


@pytest.mark.parametrize("optimizer", [GAUSS_NEWTON, {"kind": "muon"}, {**GAUSS_NEWTON, "blocks": "layer"}])
@pytest.mark.parametrize("kernel", ["plain", "flash"])
def test_attention_may_be_declared(optimizer, kernel):
    planned = plan(experiment(optimizer, compile={"attention": kernel}))
    assert planned.attention == planned.to_json()["attention"] == kernel


def test_with_flash_attention_the_curved_region_makes_one_product_again_in_every_block():
    model = {"layers": 2, "width": 16, "heads": 2}
    plain, flash = (
        plan(experiment(GAUSS_NEWTON, model=model, compile={"attention": kernel})).regions["curved"].flops
        for kernel in ("plain", "flash")
    )
    assert flash - plain == 2 * (2 * 2 * 8 * 8 * 16)  # blocks, rows, time, time, width


def test_steps_follow_from_a_budget_in_tokens_search_included():
    budget = {"steps": None, "tokens": 1000.0}
    assert plan(experiment({"kind": "adamw", "microbatches": 2}, training=budget)).steps == 32
    assert plan(experiment(GAUSS_NEWTON, training=budget)).steps == 6


def test_every_tensor_has_a_rule_and_embedding_and_head_never_a_matrix_one():
    table = {
        row.name: row
        for row in plan(experiment({"kind": "muon", "others": {"kind": "adamw", "learning_rate": 0.5}})).parameters
    }
    assert table["embedding.weight"].method == table["head.weight"].method == table["norm.scale"].method == "adamw"
    assert table["head.weight"].learning_rate == 0.5
    assert table["blocks.0.feedforward.up.weight"].method == "muon"
    assert table["norm.scale"].block == "blocks.0"


def test_the_first_rule_that_matches_wins():
    rules = [
        {"match": "query", "use": {"kind": "adamw", "learning_rate": 0.25}},
        {"match": "attention.*weight", "use": {"kind": "muon", "learning_rate": 0.125}},
    ]
    table = {row.name: row for row in plan(experiment({"kind": "muon", "rules": rules})).parameters}
    assert (table["blocks.0.attention.query.weight"].rule, table["blocks.0.attention.key.weight"].rule) == (
        "rules.0",
        "rules.1",
    )
    assert table["blocks.0.feedforward.up.weight"].rule == "muon"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"match": "nothing_like_it", "use": "adamw"}, "owns no parameter"),
        (
            {"match": "norm", "use": "muon"},
            r"vectors to muon, which takes matrices only: blocks\.0\.attention\.norm\.scale",
        ),
    ],
)
def test_a_rule_that_cannot_be_meant_is_an_error(rule, said):
    with pytest.raises(SpecError, match=said):
        plan(experiment({"kind": "muon", "rules": [rule]}))


def test_planning_a_large_model_allocates_nothing_and_its_json_is_plain():
    large = experiment(
        {"kind": "muon"},
        model={"layers": 12, "width": 768, "heads": 16},
        data={"kind": "text", "tokenizer": {"kind": "bpe", "vocabulary": 32000}, "context": 1024},
    )
    before = torch.get_rng_state()
    planned = plan(large)
    text = json.loads(json.dumps(planned.to_json()))
    assert text["parameters"] == pytest.approx(134.1e6, rel=0.01)
    assert planned.memory["parameters"] == 4 * text["parameters"]
    assert planned.memory["optimizer"] > planned.memory["parameters"]
    assert torch.equal(before, torch.get_rng_state())


def test_only_a_micro_batch_with_many_logits_is_taken_in_pieces():
    shipped = [path for path in SPECS.rglob("*.yaml") if not {"paper", "common", "track3"} & set(path.parts)]
    assert len(shipped) > 20
    assert {count_pieces(load(path).experiment) for path in shipped} == {1}
    assert count_pieces(load(SPECS / "paper" / "full_gn_45m.yaml").experiment) == 32
    wide = {"kind": "text", "tokenizer": {"kind": "bpe", "vocabulary": 4096}, "context": 1024}
    assert [
        count_pieces(experiment(GAUSS_NEWTON, data=wide, training={"steps": 1, "rows": rows})) for rows in (8, 9, 17)
    ] == [1, 2, 4], "of equal size"
    rough = {**GAUSS_NEWTON, "tangent": "difference"}
    assert [count_pieces(experiment(rough, data=wide, training={"steps": 1, "rows": r})) for r in (4, 8, 9)] == [
        1,
        2,
        3,
    ]


def test_the_activations_of_a_piece_are_those_of_its_logits():
    wide = {"kind": "text", "tokenizer": {"kind": "bpe", "vocabulary": 32000}, "context": 64}
    whole, half = (
        plan(experiment(GAUSS_NEWTON, data=wide, training={"steps": 1, "rows": rows})).regions for rows in (16, 32)
    )
    for region in ("value", "curved"):
        assert half[region].flops == pytest.approx(2 * whole[region].flops)
        assert half[region].peak_bytes < 1.2 * whole[region].peak_bytes


@pytest.mark.parametrize("optimizer", [GAUSS_NEWTON, {"kind": "adamw"}])
def test_within_a_budget_of_activations_the_blocks_are_taken_again(optimizer):
    model = {"layers": 6, "width": 32, "heads": 2}
    training = {"steps": 1, "rows": 16}

    def most(found):
        return max(cost.peak_bytes for cost in found.regions.values())

    def planned(**budget):
        return plan(experiment(optimizer, model=model, training=training, compile=budget))

    free = planned()
    needed = most(free) / 2**20
    assert not free.recomputed
    assert free.to_json() == planned(activations=ceil(needed)).to_json(), "where it fits, nothing changes"
    tight = planned(activations=ceil(needed / 2))
    assert tight.recomputed
    assert tight.to_json()["recomputed"]
    assert most(tight) <= ceil(needed / 2) * 2**20
    region = "gradient" if optimizer["kind"] == "adamw" else "curved"
    more, body = tight.regions[region].flops - free.regions[region].flops, free.regions["value"].flops
    assert 0.5 * body < more < body, "one more pass through the blocks, and none through the head"
    with pytest.raises(SpecError, match=r"compile.activations is 1 MiB; `\w+` needs at least \d+ MiB\. Raise"):
        planned(activations=1)
