"""The key `optimizer.checks:` of Gauss-Newton: where a solve may end early."""

from collections.abc import Mapping, Sequence
from typing import Any

from gnflow.spec.base import refuse
from gnflow.spec.schedules import AnySchedule, Constant


def require_usable(checks: tuple[int, ...], given: Mapping[str, Any], own: Sequence[AnySchedule]) -> tuple[int, ...]:
    """Return the checks if they fit what else is given; `own` are the schedules of parts of the inner optimizer.

    Keys that are not valid themselves are missing in `given`, and nothing is said of them.
    """
    steps = given.get("inner_steps")
    if not checks or steps is None:
        return checks
    if list(checks) != sorted(set(checks)) or checks[-1] >= steps:
        raise refuse(f"expected increasing numbers below the {steps} inner steps, which are a check themselves")
    if given.get("blocks", "full") != "full" or given.get("average"):
        raise refuse("checks measure the loss at one inner iterate of all blocks; set `blocks: full`, `average: 0.0`")
    if "search" in given and not getattr(given["search"], "fresh", False):
        raise refuse("checks need micro-batches apart from the solve; set a `search` that has some, as `geometric`")
    if given.get("inner_state") == "kept":
        for one in (*([given["schedule"]] if "schedule" in given else []), *own):
            if not isinstance(one, Constant) or one.looks_ahead:
                raise refuse(
                    f"a solve that ends early would shift the schedule `{one.kind}` of later ones; "
                    "set `schedule: constant`, or `inner_state: reset`"
                )
    return checks
