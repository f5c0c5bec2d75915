"""What docs/as_library.md shows is what happens."""

import re
from pathlib import Path

import pytest
import torch

from gnflow.spec.built_in import BUILT_IN

ROOT = Path(__file__).parents[1]
LOOP, PURE, KINDS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "as_library.md").read_text(), flags=re.MULTILINE | re.DOTALL
)


def test_the_training_loop_it_shows_trains_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(LOOP, "as_library.md", "exec"), scope)
    model, optimizer = scope["model"], scope["optimizer"]
    assert isinstance(scope["loss"], torch.Tensor)
    assert scope["loss"] < 0.1
    saved = torch.load("checkpoint.pt", weights_only=True)
    assert saved["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]  # type: ignore[attr-defined]
    assert saved["model"].keys() == model.state_dict().keys()  # type: ignore[attr-defined]


def test_the_pure_functions_it_shows_are_called_so() -> None:
    from gnflow.optim import soap

    params, gradients = {"w": torch.ones(4, 3)}, {"w": torch.randn(4, 3)}
    scope = {"transform": soap(), "params": params, "gradients": gradients}
    exec(compile(PURE, "as_library.md", "exec"), scope)
    assert scope["updates"]["w"].shape == (4, 3)  # type: ignore[index]


def test_the_transforms_it_shows_move_weights_so() -> None:
    scope: dict[str, object] = {}
    exec(compile(KINDS, "as_library.md", "exec"), scope)
    params, gradients = {"w": torch.ones(4, 3)}, {"w": torch.randn(4, 3)}
    for name in ("on_a_sphere", "decaying"):
        transform = scope[name]
        updates, _ = transform.update(gradients, transform.init(params), params)  # type: ignore[attr-defined]
        assert 0 < updates["w"].norm() < 0.1
        if name == "on_a_sphere":
            torch.testing.assert_close((params["w"] + updates["w"]).norm(), params["w"].norm())


def test_the_page_names_every_built_in_rule() -> None:
    page = (ROOT / "docs" / "as_library.md").read_text()
    assert not [kind for kind in BUILT_IN["optimizers"] if f"`{kind}`" not in page]


def test_every_fault_names_a_test_that_exists() -> None:
    rows = re.findall(r"`(tests/[\w/]+\.py)` `(\w+)` \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    assert not [(file, name) for file, name in rows if f"def {name}(" not in (ROOT / file).read_text()]
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if "\n@pytest.mark.faults\n" in path.read_text()}
    assert len(marked) > 3
    assert marked <= {ROOT / file for file, _ in rows}, "`make faults` runs the files of this table"
