from pathlib import Path
from typing import ClassVar, Literal

import pytest
import stranger_metrics as strangers

from gnflow.errors import EnvironmentProblem
from gnflow.spec import training
from gnflow.spec.base import Kind
from gnflow.spec.factory import import_function
from gnflow.spec.training import MetricKind

BUILT_IN = [kind for kind in MetricKind.__subclasses__() if kind.__module__ == training.__name__]


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
def test_every_built_in_metric_has_a_factory_that_can_be_imported(kind: type[MetricKind]) -> None:
    assert import_function(kind()).__module__ == kind.factory.partition(":")[0]
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
        (Bare(), 'the class has no `factory`; write `factory = "module:function"` in it'),
        (Misspelt(), 'the factory of the class is `my_metrics.top_five`; write `factory = "module:function"` in it'),
        (
            Absent(),
            "there is no module `no_such_module` installed",
        ),
        (Nameless(), "the factory `gnflow.metrics.recorded:costs` is not there: the module has no function `costs`"),
        (Value(), "the factory `gnflow.metrics.sheets:COLUMNS` is not there: the module has no function `COLUMNS`"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_kind_without_a_usable_factory_is_one_error_that_names_it(section: Kind, problem: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        import_function(section)
    assert str(caught.value) == f"kind `bare` ({__file__}): {problem}"


def test_a_module_that_fails_is_one_line_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = strangers.metric(tmp_path, monkeypatch)
    (tmp_path / "strangers" / "my_metrics.py").write_text("raise RuntimeError('no\\nGPU')\n")
    with pytest.raises(EnvironmentProblem) as caught:
        import_function(metric)
    expected = "kind `top_five` (my_metrics): my_metrics cannot be imported: RuntimeError: no GPU (my_metrics.py:1)"
    assert str(caught.value) == expected
