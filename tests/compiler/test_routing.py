import multimodal
import pytest
from problems import experiment

from gnflow.compiler.plan import plan
from gnflow.errors import SpecError

MATRIX_METHODS = ("muon", "rmnp", "soap", "fop_soap", "ml_fop_soap")


def table(**optimizer: object) -> dict[str, tuple[str, str, float]]:
    """Parameter -> rule, method, learning rate."""
    rows = plan(experiment(optimizer)).parameters
    return {row.name: (row.rule, row.method, row.learning_rate) for row in rows}


@pytest.mark.parametrize("kind", MATRIX_METHODS)
def test_a_matrix_method_owns_the_matrices_inside_the_blocks_and_nothing_else(kind):
    rows = table(kind=kind, learning_rate=0.5, others={"kind": "adamw", "learning_rate": 0.25})
    for name, row in rows.items():
        inside = name.startswith("blocks.") and name.endswith("weight")
        assert row == ((kind, kind, 0.5) if inside else ("others", "adamw", 0.25)), name


def test_rmnp_has_both_published_routings():
    everything = table(kind="rmnp", routing="all")
    assert {name for name, row in everything.items() if row[0] == "others"} == {
        name for name in everything if not name.endswith("weight")
    }
    assert everything["embedding.weight"][1] == everything["head.weight"][1] == "rmnp"
    assert table(kind="rmnp", routing="matrices")["head.weight"][1] == "adamw"


def test_the_first_rule_that_matches_wins():
    rows = table(
        kind="muon",
        rules=[
            {"match": r"query\.weight", "use": {"kind": "soap", "learning_rate": 0.1}},
            {"match": "attention.*weight", "use": {"kind": "rmnp", "learning_rate": 0.2}},
        ],
    )
    assert rows["blocks.0.attention.query.weight"] == ("rules.0", "soap", 0.1)
    assert rows["blocks.0.attention.key.weight"] == ("rules.1", "rmnp", 0.2)
    assert rows["blocks.0.feedforward.up.weight"][:2] == ("muon", "muon")


def refused(**optimizer: object) -> str:
    with pytest.raises(SpecError) as caught:
        plan(experiment(optimizer))
    return str(caught.value)


def test_a_rule_that_owns_nothing_is_refused():
    assert "rule 0 (match: querry) owns no parameter" in refused(
        kind="muon", rules=[{"match": "querry", "use": "adamw"}]
    )  # fmt: skip


def test_vectors_under_a_matrix_method_are_listed():
    message = refused(kind="adamw", rules=[{"match": "norm", "use": "soap"}])
    assert "sends vectors to soap" in message
    assert "blocks.0.attention.norm.scale" in message


def test_embedding_and_head_never_fall_silently_into_a_matrix_rule():
    message = refused(kind="adamw", rules=[{"match": "weight", "use": "rmnp"}])
    assert "embedding.weight and head.weight to rmnp along with matrices inside the blocks" in message
    meant = table(
        kind="adamw",
        rules=[{"match": r"^(embedding|head)\.", "use": "rmnp"}, {"match": "weight", "use": "muon"}],
    )
    assert meant["head.weight"][1] == "rmnp"
    assert meant["blocks.0.feedforward.up.weight"][1] == "muon"


def test_a_split_that_leaves_a_rest_is_refused_by_name():
    with pytest.raises(
        SpecError, match=r"`split: 3` does not divide the 16 rows of blocks\.0\.attention\.query\.weight"
    ):
        table(kind="muon", split=3)
    with pytest.raises(
        SpecError, match=r"`split: 5` does not divide the 64 rows of blocks\.0\.feedforward\.up\.weight"
    ):
        table(kind="rmnp", rules=[{"match": "up", "use": {"kind": "muon", "split": 5}}])
    table(kind="muon", split=4)


@pytest.mark.parametrize("kind", MATRIX_METHODS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_matrix_method_whose_matrices_are_all_frozen_is_refused(kind, inside):
    optimizer = {"kind": kind}
    if inside:
        optimizer = {"kind": "gauss_newton", "inner": optimizer, "blocks": "layer"}
    freeze = ["decoder", "understanding", "generation", "image_head"]
    with pytest.raises(SpecError, match=f"{kind} is left without any matrix: all of them are frozen"):
        plan(multimodal.experiment("janus", optimizer, model={"freeze": freeze}))


def test_a_matrix_method_whose_matrices_rules_take_is_refused():
    everything = [{"match": "blocks.*weight", "use": "muon"}]
    assert "fop_soap is left without any matrix: rules take them all" in refused(kind="fop_soap", rules=everything)
    away = [{"match": ".", "use": "adamw"}]
    assert "muon is left without any matrix: rules take them all" in refused(kind="muon", rules=away)
    assert table(kind="rmnp", rules=everything)["blocks.0.attention.key.weight"][1] == "muon"
