"""Clipping as a spec asks for it: one norm over all gradients, and parts with a limit of their own."""

import pytest
from problems import experiment, noise

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.optim.protocol import eager
from gnflow.verify.problems import draw_start
from gnflow.verify.subject import shrink

OUTSIDE = "embedding|head"


@pytest.mark.parametrize("all_clip", [None, 1e-3])
def test_a_part_with_its_own_limit_is_clipped_apart_from_all_others(all_clip: float | None) -> None:
    rules = [{"match": OUTSIDE, "use": {"kind": "adamw", "betas": [0.0, 0.9], "clip": 1e-2}}]
    clip = {} if all_clip is None else {"clip": all_clip}
    small = shrink(experiment({"kind": "adamw", "betas": [0.0, 0.9], "rules": rules, **clip}))
    network = build.build_model(small, "plain")
    optimizer = methods.build_optimizer(small.optimizer, network, 3, eager)
    start = optimizer.stacks.stack(draw_start(small, network))
    gradients = noise(start, 1)
    _, after = optimizer.transform.update(gradients, optimizer.transform.init(start), start)
    # With betas[0] 0 the first moments are the clipped gradients.
    for label, limit in (("rules.0", 1e-2), ("adamw", all_clip)):
        own = trees.pick(gradients, [stack for stack, rule in optimizer.stacks.rules.items() if rule == label])
        expected = trees.norm(own).item() if limit is None else limit
        assert trees.norm(after[-1][label].first).item() == pytest.approx(expected, rel=1e-5)
