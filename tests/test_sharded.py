"""Weights sharded over processes, as a prototype: it is not part of the product (see docs/decisions.md, 84)."""

import crews


def test_a_stage_at_a_time_gives_the_gradient_of_the_convex_model_with_half_of_the_weights() -> None:
    found = crews.ask("sharded:work", size=2)
    assert found["error"] < 1e-12
    assert found["value"] < 1e-12
    assert found["held"] < 0.51
