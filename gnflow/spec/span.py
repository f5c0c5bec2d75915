"""A length of time in a run: a number of updates, or a fraction of the run below 1."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gnflow.spec.base import Expects


@dataclass(frozen=True)
class _UpdatesOrPart:
    """A validator that tells the two apart by type: 1 is one update, and 1.0 is an error."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        updates = core_schema.int_schema(strict=True, ge=0)
        part = core_schema.float_schema(strict=True, ge=0, lt=1, allow_inf_nan=False)
        return core_schema.union_schema(
            [updates, part], mode="left_to_right", custom_error_type="span", custom_error_message="no span of a run"
        )


Span = Annotated[int | float, _UpdatesOrPart(), Expects("a number of updates, or a fraction of the run below 1")]


def measure(span: int | float, updates: int) -> int:
    """Return a span in updates, for a run of `updates` updates. A part is rounded to the nearest whole number."""
    return span if isinstance(span, int) else round(span * updates)
