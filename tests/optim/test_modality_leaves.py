import multimodal
import pytest
import torch
from multimodal import KINDS

from gnflow import trees
from gnflow.models.loss import compute_cross_entropy
from gnflow.optim.fisher_orthogonal import Projection, damp_diagonal, merge_pair
from gnflow.optim.means import average_gradient
from gnflow.optim.protocol import eager
from gnflow.verify.checks import OPTIMIZER
from gnflow.verify.subject import advance, build_parts, draw_start, draw_text, shrink

BY_MODALITY = {"kind": "ml_fop_soap", "granularity": "modality", "microbatches": 3}
IMAGE = (3, 5)


def made(kind, optimizer=BY_MODALITY):
    small = shrink(multimodal.experiment(kind, optimizer))
    return small, build_parts(small, eager)


def alone(network, tokens, image):
    """(loss, weight) of the targets of one modality, as functions of the weights; groups are set to 0 by hand."""
    kept = tokens.clone()
    for place in torch.cartesian_prod(*map(torch.arange, tokens.shape[:2])).tolist():
        if (int(tokens[(*place, 1)]) in IMAGE) != image:
            kept[(*place, 1)] = 0
    inputs, targets = network.split(kept)
    return lambda params: compute_cross_entropy(network.compute_logits(params, inputs), targets), targets.weights.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_the_leaves_are_the_gradients_of_the_image_loss_and_of_the_text_loss(kind):
    small, (network, objective, optimizer) = made(kind)
    params, tokens = draw_start(small, network), draw_text(small, 1, 7)[0]
    leaves = list(optimizer._compute_leaves(objective, params, tokens[None]))
    assert len(leaves) == 2
    for leaf, image in zip(leaves, (True, False), strict=True):
        loss, weight = alone(network, tokens, image)
        expected, value = torch.func.grad_and_value(loss)(params)
        torch.testing.assert_close(leaf.gradient, expected, atol=1e-6, rtol=1e-4)
        assert leaf.loss.item() == pytest.approx(value.item(), rel=1e-5)
        assert leaf.share.item() == pytest.approx((weight / network.split(tokens)[1].weights.sum()).item())


@pytest.mark.parametrize("kind", KINDS)
def test_their_mean_by_shares_is_the_gradient_of_the_whole_loss(kind):
    small, (network, objective, optimizer) = made(kind)
    params, batch = draw_start(small, network), draw_text(small, 3, 7)
    leaves = list(optimizer._compute_leaves(objective, params, batch))
    whole, loss = average_gradient(objective, params, batch)
    total = trees.add(*[trees.scale(leaf.gradient, leaf.share) for leaf in leaves])
    torch.testing.assert_close(total, whole, atol=1e-6, rtol=1e-4)
    assert sum(leaf.share for leaf in leaves).item() == pytest.approx(1)
    assert sum(leaf.share * leaf.loss for leaf in leaves).item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_direction_is_their_projection_matrix_by_matrix():
    small, made_parts = made("emu3")
    network, objective, optimizer = made_parts
    reached = advance(small, made_parts, draw_start(small, network), 3)
    batch = draw_text(small, 3, 7)
    slope, _, metrics = optimizer.find_slope(objective, reached.params, reached.state, batch)
    metric = optimizer.transform.metric
    one, two = (leaf for leaf in optimizer._compute_leaves(objective, reached.params, batch))
    turned = [metric.into(optimizer.stacks.stack(leaf.gradient), reached.state) for leaf in (one, two)]
    fisher = damp_diagonal(metric.diagonal(reached.state), Projection())
    expected = merge_pair(*turned, one.share, fisher, Projection())
    torch.testing.assert_close(slope.direction, metric.back(expected.gradient, reached.state), atol=1e-6, rtol=1e-4)
    assert metrics["fop/beta_1"] == expected.beta != 0
    assert "fop/beta_2" not in metrics


@pytest.mark.parametrize("kind", KINDS)
def test_beta_zero_is_soap_exactly(kind):
    small, control = made(kind, {**BY_MODALITY, "beta": 0.0})
    soap = {"kind": "soap", "microbatches": 3}
    plain, by_soap = made(kind, soap)
    start = draw_start(small, control.network)
    ends = [advance(each, of, start, 4).params for each, of in ((small, control), (plain, by_soap))]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)


@pytest.mark.parametrize("claim", ["counts its micro-batches", "resumes bit for bit", "descends on text"])
def test_it_keeps_the_promises_of_every_optimizer(claim):
    OPTIMIZER[claim](made("emu3")[0])


def test_inside_gauss_newton_the_leaves_are_models_of_both_losses():
    small, made_parts = made(
        "janus", {"kind": "gauss_newton", "inner": BY_MODALITY, "inner_steps": 2, "search": "none"}
    )
    reached = advance(small, made_parts, draw_start(small, made_parts.network), 1)
    assert all(weight.isfinite().all() for weight in reached.params.values())
