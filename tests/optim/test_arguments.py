"""A factory and the class of the spec say the same of every hyper-parameter."""

import inspect

import pytest

from gnflow.spec.built_in import BUILT_IN
from gnflow.spec.classes import find_class
from gnflow.spec.factory import collect_parameters as given
from gnflow.spec.factory import import_function
from gnflow.spec.grammar import find_help, list_shapes
from gnflow.spec.kinds import get_current

RULES = list(BUILT_IN["optimizers"])


@pytest.mark.parametrize("kind", RULES)
def test_factory_and_spec_have_the_same_arguments_with_the_same_defaults(kind: str) -> None:
    rule = find_class(get_current().list_group("optimizers")[kind])
    parameters = dict(inspect.signature(import_function(rule())).parameters)
    assert parameters.pop("schedule").default is None
    assert {name: parameter.default for name, parameter in parameters.items()} == given(rule())


@pytest.mark.parametrize("kind", RULES)
def test_help_of_a_factory_documents_every_argument(kind: str) -> None:
    rule = find_class(get_current().list_group("optimizers")[kind])
    shown = " ".join(inspect.getdoc(import_function(rule())).split())
    for name in list_shapes(rule):
        if name in given(rule()):
            assert f"{name}: {' '.join(find_help(rule, name).split())}" in shown
    assert "schedule: Updates made so far" in shown
