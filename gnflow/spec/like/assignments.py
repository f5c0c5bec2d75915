"""Read the assignments of a Python file of settings from its syntax tree. Nothing of the file is executed."""

import ast
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gnflow.spec.like.draft import Unreadable, read_settings

Value = str | int | float | bool | None
MOST = 1e300  # no number of a setting is larger
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


class Assignments(NamedTuple):
    """The settings of a file by name."""

    values: dict[str, Value]
    computed: dict[str, str]
    """Names whose values are known only when the file runs, with the expressions."""


def read_assignments(file: Path) -> Assignments:
    """Read `name = value` at the top of a file: constants, names given before, and sums and products of them.

    Raises Unreadable if the file is not Python.
    """
    try:
        statements = ast.parse(read_settings(file), str(file)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise Unreadable(f"{file}{line} is not Python: {error}") from None
    found = Assignments({}, {})
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        found.values.pop(name, None)
        found.computed.pop(name, None)
        try:
            found.values[name] = _evaluate(value, found.values)
        except (ValueError, ArithmeticError, RecursionError):
            found.computed[name] = ast.unparse(value)
    return found


def _evaluate(node: ast.expr, known: Mapping[str, Value]) -> Value:
    """Return the value of an expression. Raises ValueError or ArithmeticError if it is not one that a reader knows."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_require_number(_evaluate(operand, known))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            numbers = (_require_number(_evaluate(side, known)) for side in (left, right))
            return _require_number(_ARITHMETIC[type(op)](*numbers))
        case _:
            raise ValueError("another expression")


def _require_number(value: Value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST:
        raise ValueError("no number")
    return value
