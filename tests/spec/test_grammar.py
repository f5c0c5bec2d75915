from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import find_help, find_kind, list_shapes, summarize, walk_models


def test_every_key_of_the_grammar_has_help() -> None:
    silent = [
        f"{model.__name__}.{name}"
        for _, model in walk_models()
        for name in model.model_fields
        if name != "kind" and not find_help(model, name).endswith(".")
    ]
    assert not silent


def test_every_kind_says_what_it_is() -> None:
    for _, model in walk_models():
        assert summarize(model)


def test_every_place_says_in_words_what_it_takes() -> None:
    words = {
        f"{model.__name__}.{name}": shape.words
        for _, model in walk_models()
        for name, shape in list_shapes(model).items()
    }
    assert all(words.values())
    assert words["Decoder.layers"] == "a whole number of at least 1"
    assert words["BPE.vocabulary"] == "a whole number from 257 to 1000000"
    assert words["Files.held_out_fraction"] == "a number greater than 0 and less than 1"
    assert words["AdamW.betas"] == "a list of 2, each a number of at least 0 and less than 1"
    assert words["Experiment.compile"] == "a mapping"


def test_every_kind_is_a_default_so_that_it_can_be_shown() -> None:
    for _, model in walk_models():
        if "kind" in model.model_fields:
            assert find_kind(model)


def test_the_walk_begins_at_the_root_and_reaches_the_leaves() -> None:
    places = list(walk_models())
    assert places[0] == ((), Experiment)
    assert ("optimizer", "inner", "rules", 0, "use") in [path for path, _ in places]
