"""A factory and the class of the spec say the same of every hyper-parameter."""

import inspect

import pytest

from gnflow.spec.built_in import BUILT_IN
from gnflow.spec.classes import class_of
from gnflow.spec.factory import imported
from gnflow.spec.factory import parameters as given
from gnflow.spec.grammar import help_of, shapes
from gnflow.spec.kinds import current

RULES = list(BUILT_IN["optimizers"])


@pytest.mark.parametrize("kind", RULES)
def test_factory_and_spec_have_the_same_arguments_with_the_same_defaults(kind: str) -> None:
    rule = class_of(current().all("optimizers")[kind])
    parameters = dict(inspect.signature(imported(rule())).parameters)
    assert parameters.pop("schedule").default is None
    assert {name: parameter.default for name, parameter in parameters.items()} == given(rule())


@pytest.mark.parametrize("kind", RULES)
def test_help_of_a_factory_documents_every_argument(kind: str) -> None:
    rule = class_of(current().all("optimizers")[kind])
    shown = " ".join(inspect.getdoc(imported(rule())).split())
    for name in shapes(rule):
        if name in given(rule()):
            assert f"{name}: {' '.join(help_of(rule, name).split())}" in shown
    assert "schedule: Updates made so far" in shown
