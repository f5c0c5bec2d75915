import pytest
import torch
from problems import experiment, noise

from gnflow import optim
from gnflow.optim import Cautious
from gnflow.optim.decay import add_decay, find_decay
from gnflow.spec.built_in import BUILT_IN
from gnflow.spec.canonical import digest, make_tree

RULES = list(BUILT_IN["optimizers"])
RATE = 0.25


def drawn(seed, dtype=torch.float64):
    return noise({"w": torch.empty(2, 6, 6, dtype=dtype)}, seed)


def update(kind, decay, weights, dtype=torch.float64):
    """The third update, which is neither the first of SOAP's nor without a momentum."""
    transform = getattr(optim, kind)(learning_rate=0.5, weight_decay=decay)
    state = transform.init(weights)
    for step in range(3):
        if transform.refresh is not None:
            state = transform.refresh(drawn(step, dtype), state)
        updates, state = transform.update(drawn(step, dtype), state, weights)
    return updates["w"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", RULES)
def test_it_is_plain_decay_where_all_signs_agree_and_none_where_none_does(kind, dtype):
    sizes = drawn(9, dtype)["w"].abs()
    against = update(kind, 0.0, {"w": sizes}, dtype)
    along = {"w": -against.sign() * sizes}
    agreeing = update(kind, Cautious(rate=RATE), along, dtype)
    assert agreeing.dtype == dtype
    torch.testing.assert_close(agreeing, update(kind, RATE, along, dtype), atol=1e-6, rtol=1e-6)
    if kind not in ("soap", "kl_soap"):  # their rates are a tensor here and a number there, which round apart
        assert torch.equal(agreeing, update(kind, RATE, along, dtype))
    opposed = {"w": -along["w"]}
    torch.testing.assert_close(update(kind, Cautious(rate=RATE), opposed, dtype), update(kind, 0.0, opposed, dtype))


@pytest.mark.parametrize("kind", RULES)
def test_each_entry_decays_by_its_own_sign(kind):
    weights = drawn(9)
    plain, none = update(kind, RATE, weights), update(kind, 0.0, weights)
    agrees = none * weights["w"] <= 0
    assert 0.2 < agrees.double().mean() < 0.8
    torch.testing.assert_close(update(kind, Cautious(rate=RATE), weights), torch.where(agrees, plain, none))


def test_an_entry_that_the_update_leaves_alone_decays():
    direction, weight = torch.tensor([0.0, 1.0, -1.0, 1e-30]), torch.tensor([2.0, 2.0, 2.0, -1e-30])
    assert find_decay(Cautious(rate=0.5), direction, weight).tolist() == [0.5, 0.5, 0.0, 0.0]
    assert find_decay(0.5, direction, weight) == 0.5


@pytest.mark.parametrize("kind", RULES)
def test_a_spec_may_write_it_and_a_number_means_what_it_meant(kind):
    written = {"kind": "cautious", "rate": 0.3}
    assert experiment({"kind": kind, "weight_decay": written}).optimizer.weight_decay == Cautious(rate=0.3)
    assert experiment({"kind": kind, "weight_decay": "cautious"}).optimizer.weight_decay == Cautious()
    plain = experiment({"kind": kind, "weight_decay": 0.3})
    assert (
        make_tree(plain)["optimizer"]["weight_decay"]
        == plain.model_dump(mode="json")["optimizer"]["weight_decay"]
        == 0.3
    )
    assert digest(plain) != digest(experiment({"kind": kind, "weight_decay": written}))


@pytest.mark.parametrize("decay", [0.5, Cautious(rate=0.5)])
def test_it_is_not_forgotten_by_a_compiler_that_adds_it_to_a_matrix_product(decay):
    direction, basis, weight = (noise({"w": torch.empty(8, 8)}, seed)["w"] for seed in range(3))

    def find(direction, basis, weight):
        return add_decay(decay, direction @ basis, weight)

    found = torch.compile(find)(direction, basis, weight)
    torch.testing.assert_close(found, find(direction, basis, weight), rtol=1e-5, atol=1e-5)
