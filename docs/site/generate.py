"""Write the pages of the documentation site into a folder: `python docs/site/generate.py FOLDER`.

The pages of docs/ are copied. Pages about optimizers, keys of a spec and commands are made from the code, figures and
reports from the studies. Nothing that is written here is committed.
"""

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from figures import draw_comparison
from keys import write_keys
from notebooks import write_page
from optimizers import list_optimizers, write_index, write_optimizer
from pages import copy_pages
from verbs import write_commands

ROOT = Path(__file__).parents[2]
REPORT = re.compile(r"^\[[^]]*\]\(([^)]*pipelines/(\w+)/report\.html)\)$", re.MULTILINE)
REPEAT = re.compile(r"^```sh\n((?:dvc repro pipelines/\w+/dvc\.yaml\n)+)```$", re.MULTILINE)
EXTRA = {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
Nav: TypeAlias = "list[str | dict[str, str | Nav]]"


def generate(site: Path) -> set[str]:
    """Write all pages into the folder `site`, which is emptied first, and return their places."""
    shutil.rmtree(site, ignore_errors=True)
    made = {**write_keys(), "reference/commands.md": write_commands(), "optimizers/index.md": write_index(ROOT)}
    made |= {f"optimizers/{kind}.md": write_optimizer(ROOT, kind, model) for kind, model in list_optimizers().items()}
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    made |= {f"notebooks/{path.stem}.md": write_page(path) for path in notebooks}
    for place, text in made.items():
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(text)
    for path in notebooks:
        shutil.copyfile(path, site / "notebooks" / path.name)
    shutil.copytree(ROOT / "docs" / "site" / "assets", site / "assets")
    copy_pages(ROOT, site, {*list_sources(), *EXTRA}, set(made))
    for page in (site / "results").glob("*.md"):
        page.write_text(show_studies(page.read_text()))
    return {str(page.relative_to(site)) for page in site.rglob("*.md")}


def list_sources() -> set[str]:
    """Return the pages of docs/ that a person writes."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}


def show_studies(text: str) -> str:
    """Return a page of results with a figure before each report, which is shown, or else before each command."""
    if not REPORT.search(text):
        return REPEAT.sub(lambda block: f"{_draw_all(block[1])}\n{block[0]}", text)
    frame = '<iframe class="report" src="{}" title="{}" loading="lazy"></iframe>'
    return REPORT.sub(
        lambda link: f"{_draw_all(link[1])}\n{link[0]}\n\n{frame.format(link[1], link[2])}",
        text,
    )


def _draw_all(commands: str) -> str:
    names = re.findall(r"pipelines/(\w+)/", commands)
    return "\n".join(draw_comparison(ROOT / "pipelines" / name / "comparison.json") for name in names)


def list_nav(nav: Nav) -> Iterator[str]:
    """Yield the pages that the navigation names."""
    for entry in nav:
        for value in [entry] if isinstance(entry, str) else entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from list_nav(value)


def main() -> int:
    """Write the site's pages. Return 1 if the navigation misses one or names one that does not exist."""
    pages = generate(Path(sys.argv[1]))
    named = set(list_nav(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    for page in sorted(pages ^ named):
        print(f"zensical.toml: the navigation {'misses' if page in pages else 'names what does not exist:'} {page}")
    return int(pages != named)


if __name__ == "__main__":
    sys.exit(main())
