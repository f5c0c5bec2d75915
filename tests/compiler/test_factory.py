from pathlib import Path
from typing import ClassVar, Literal

import pytest
import strangers

from gnflow.compiler.factory import imported
from gnflow.errors import EnvironmentProblem
from gnflow.spec import training
from gnflow.spec.base import Kind
from gnflow.spec.training import MetricKind

BUILT_IN = [kind for kind in MetricKind.__subclasses__() if kind.__module__ == training.__name__]


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
def test_every_built_in_metric_has_a_factory_that_can_be_imported(kind: type[MetricKind]) -> None:
    assert imported(kind()).__module__ == kind.factory.partition(":")[0]
    assert kind.columns


def test_the_built_in_metrics_are_seven() -> None:
    assert len(BUILT_IN) == 7


class Bare(Kind):
    kind: Literal["bare"] = "bare"


class Misspelt(Bare):
    factory: ClassVar[str] = "my_metrics.top_five"


class Absent(Bare):
    factory: ClassVar[str] = "no_such_module:build"


class Nameless(Bare):
    factory: ClassVar[str] = "gnflow.metrics.recorded:costs"


class Value(Bare):
    factory: ClassVar[str] = "gnflow.metrics.sheets:COLUMNS"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (Bare(), f'has no factory; give {__name__}.Bare the line `factory = "module:function"`'),
        (Misspelt(), 'has the factory "my_metrics.top_five"; expected "module:function"'),
        (
            Absent(),
            ": `no_such_module` cannot be imported for its factory: "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (Nameless(), ": `gnflow.metrics.recorded` has no function `costs`, which its factory names"),
        (Value(), ": `gnflow.metrics.sheets` has no function `COLUMNS`, which its factory names"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_kind_without_a_usable_factory_is_one_error_that_names_it(section: Kind, problem: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        imported(section)
    assert str(caught.value).replace("kind `bare` ", "kind `bare`") == f"kind `bare`{problem}"


def test_a_module_that_fails_is_one_line_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = strangers.metric(tmp_path, monkeypatch)
    (tmp_path / "strangers" / "my_metrics.py").write_text("raise RuntimeError('no\\nGPU')\n")
    with pytest.raises(EnvironmentProblem) as caught:
        imported(metric)
    expected = "kind `top_five`: `my_metrics` cannot be imported for its factory: RuntimeError: no GPU"
    assert str(caught.value) == expected
