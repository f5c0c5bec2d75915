"""The documentation site: its generated pages say what the code does, its links hold, its notebooks run."""

import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gnflow.spec.schema import make_schema

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "site"))
        yield importlib.import_module("generate")


@pytest.fixture(scope="module")
def pages(site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every page by its place. A link to a file that does not exist raises."""
    folder = tmp_path_factory.mktemp("site")
    return {place: (folder / place).read_text() for place in site.generate(folder)}


def test_the_navigation_has_every_page(site: ModuleType, pages: dict[str, str]) -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(site.list_nav(nav)) == sorted(pages)


def test_every_key_of_the_schema_has_a_row_with_its_help(pages: dict[str, str]) -> None:
    rows = "\n".join(text for place, text in pages.items() if place.startswith("reference/spec"))
    for name, body in make_schema()["$defs"].items():
        for key, inner in {} if name.endswith(".partial") else body.get("properties", {}).items():
            if key not in ("kind", "extends"):
                told = " ".join(inner.get("description", "").split()).replace("|", "\\|").replace("<", "&lt;")
                assert f"| `{key}` |" in rows, f"{name}.{key}"
                assert f"| {told} |" in rows, f"{name}.{key}"


def test_the_page_of_an_optimizer_has_rule_source_use_options_and_studies(pages: dict[str, str]) -> None:
    page = pages["optimizers/soap.md"]
    assert "M <- b1 M + (1 - b1) X,   V <- b2 V" in page
    assert "**Source**: Vyas et al. 2024, [arXiv:2409.11321](https://arxiv.org/abs/2409.11321)" in page
    assert "## When to use it\n\nLarge batches" in page
    assert "| `precondition_frequency` | `10` |" in page
    assert "[critical_batch_size](../results/critical_batch_size.md)" in page
    assert all("\nUse:" not in text for place, text in pages.items() if place.startswith("optimizers/"))


def test_a_header_without_use_is_refused(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "method.py").write_text('"""A method.\n\nSource:   a paper\n"""\n')
    with pytest.raises(ValueError, match=r"method\.py.*Use:"):
        importlib.import_module("optimizers").read_header(tmp_path / "method.py")


def test_every_study_has_its_page_figure_and_report(pages: dict[str, str]) -> None:
    for report in (ROOT / "pipelines").glob("*/report.html"):
        study = report.parent.name
        [page] = [text for place, text in pages.items() if f'pipelines/{study}/report.html" title' in text]
        assert f"pipelines/{study}/dvc.yaml" in pages["results/index.md"]
        comparison = json.loads((report.parent / "comparison.json").read_text())
        for arm in comparison["arms"].keys() - {comparison["reference"]} if comparison["targets"] else ():
            assert f'text-anchor="end">{arm}</text>' in page


def test_links_out_of_docs_lead_to_copies_and_dead_links_are_refused(site: ModuleType, tmp_path: Path) -> None:
    copied = importlib.import_module("pages")
    (tmp_path / "docs").mkdir()
    (tmp_path / "NOTES.md").write_text("[back](docs/a.md)\n```sh\n[not](a-link)\n```\n")
    (tmp_path / "docs" / "a.md").write_text("[notes](../NOTES.md#part) [web](https://x.org) [here](#there)")
    assert copied.copy_pages(tmp_path, tmp_path / "site", {"docs/a.md"}, set()) == {"docs/a.md", "NOTES.md"}
    assert "](repository/NOTES.md#part) [web](https://x.org) [here](#there)" in (tmp_path / "site/a.md").read_text()
    assert (tmp_path / "site/repository/NOTES.md").read_text().startswith("[back](../a.md)\n")
    (tmp_path / "docs" / "a.md").write_text("[gone](gone.md)")
    with pytest.raises(FileNotFoundError, match=r"docs/gone\.md"):
        copied.copy_pages(tmp_path, tmp_path / "site", {"docs/a.md"}, set())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_stored_without_outputs(
    path: Path, site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scope: dict[str, object] = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(importlib.import_module("notebooks").read_cells(path)):
        if kind == "code":
            exec(compile(text, f"{path.name}[{number}]", "exec"), scope)
    assert type(scope["chart"]).__name__ == "Chart"


def test_every_command_has_an_entry(pages: dict[str, str]) -> None:
    shown = re.findall(r"^## (gnflow .*)$", pages["reference/commands.md"], flags=re.MULTILINE)
    assert {"gnflow run", "gnflow compare", "gnflow study plan"} <= set(shown)
    assert "| `--reference` | Compare the other arms to this one." in pages["reference/commands.md"]
