"""Write one page for each optimizer, from the header of its file, its spec class and the studies that used it."""

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple

from figures import draw_comparison
from keys import list_options

from gnflow.spec.base import Kind, Spec, find_kind
from gnflow.spec.classes import load_built_in
from gnflow.spec.optimizer import ConjugateGradients, FopSoap, GaussNewton, MlFopSoap, make_method
from gnflow.spec.rules import FirstOrder

MODULES = {
    "gauss_newton": "gauss_newton",
    "cg": "conjugate_gradients",
    "fop_soap": "fisher_orthogonal",
    "ml_fop_soap": "fisher_orthogonal",
}
"""The files in gnflow/optim/ of the kinds that have no factory."""
FIELDS = ("Source", "Code", "Differs", "Use")


class Header(NamedTuple):
    """The docstring of the file of an optimizer, in its parts."""

    summary: str
    rule: str
    fields: dict[str, str]


def read_header(path: Path) -> Header:
    """Return the header of the file at `path`. Raises ValueError if it does not say when to use the method."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    body, *rest = re.split(rf"^({'|'.join(FIELDS)}): +", text, flags=re.MULTILINE)
    fields = {name: " ".join(value.split()) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    if "Use" not in fields:
        raise ValueError(f"{path}: the header has no line `Use:`, which says when to use the method")
    summary, _, rule = body.strip().partition("\n")
    return Header(summary, rule.strip("\n"), fields)


def list_optimizers() -> dict[str, type[Spec]]:
    """Return the spec classes of all built-in optimizers by kind, the one of Gauss-Newton first."""
    rules = {find_kind(rule): make_method(rule) for rule in load_built_in(FirstOrder)}
    return {
        "gauss_newton": GaussNewton,
        **rules,
        "fop_soap": FopSoap,
        "ml_fop_soap": MlFopSoap,
        "cg": ConjugateGradients,
    }


def find_file(root: Path, kind: str, model: type[Spec]) -> Path:
    """Return the file in gnflow/optim/ whose header describes a kind."""
    module = MODULES.get(kind)
    if module is None:
        assert issubclass(model, Kind)
        module = model.factory.partition(":")[0].rpartition(".")[2]
    return root / "gnflow" / "optim" / f"{module}.py"


def write_optimizer(root: Path, kind: str, model: type[Spec]) -> str:
    """Return the page of one optimizer."""
    path = find_file(root, kind, model)
    header = read_header(path)
    parts = [f"# {kind}\n", header.summary + "\n", f"## When to use it\n\n{_write_sentence(header.fields['Use'])}\n"]
    parts.append(f"## Rule\n\n{_mark_formulas(header.rule)}\n")
    parts += [f"**{name}**: {_link(text)}\n" for name, text in header.fields.items() if name != "Use"]
    parts.append(f"This text is the header of `{path.relative_to(root)}`.\n")
    parts.append(f"## Options\n\n{_write_example(kind)}\n{list_options(model)}")
    if studies := find_studies(root, kind):
        parts.append("## In our studies\n")
        parts += [
            f"[{study}](../results/{page})\n\n{draw_comparison(study_file(root, study))}"
            for study, page in studies.items()
        ]
    return "\n".join(parts)


def study_file(root: Path, study: str) -> Path:
    """Return the comparison of a study."""
    return root / "pipelines" / study / "comparison.json"


def find_studies(root: Path, kind: str) -> dict[str, str]:
    """Return the studies in which an arm uses the optimizer, each with its page in docs/results/."""
    pages = {
        study: page.name
        for page in sorted((root / "docs" / "results").glob("*.md"))
        for study in re.findall(r"pipelines/(\w+)/report\.html", page.read_text())
    }
    return {
        study: page
        for study, page in sorted(pages.items())
        if kind in {arm["optimizer"] for arm in json.loads(study_file(root, study).read_text())["arms"].values()}
    }


def write_index(root: Path) -> str:
    """Return the page that lists all optimizers with the first line of their headers."""
    rows = [
        f"| [`{kind}`]({kind}.md) | {read_header(find_file(root, kind, model)).summary} |"
        for kind, model in list_optimizers().items()
    ]
    text = (
        "Each page is made from the header of the optimizer's file and from the class that checks its options, "
        "so it says what the code does. [First-order methods](../methods.md) explains options that methods share.\n"
    )
    return "\n".join(["# Optimizers\n", text, "| kind | what it does |", "|---|---|", *rows]) + "\n"


def _write_example(kind: str) -> str:
    if kind == "cg":
        return "```yaml\noptimizer: {kind: gauss_newton, inner: {kind: cg}}\n```\n"
    return f"```yaml\noptimizer: {{kind: {kind}}}\n```\n"


def _mark_formulas(text: str) -> str:
    """Return prose as it is, and indented lines as blocks of text."""
    return re.sub(
        r"(?:^ {4,}.*\n?(?:\n(?= {4}))?)+",
        lambda block: "```text\n" + re.sub(r"^ {4}", "", block[0].rstrip("\n"), flags=re.MULTILINE) + "\n```\n",
        text + "\n",
        flags=re.MULTILINE,
    ).strip()


def _write_sentence(text: str) -> str:
    return f"{text[:1].upper()}{_link(text[1:])}."


def _link(text: str) -> str:
    text = re.sub(r"docs/results(?:/(\w+)\.md)?", lambda page: f"[results](../results/{page[1] or 'index'}.md)", text)
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"(?<![\w/.])(github\.com/[\w-]+/[\w.-]+)", r"[\1](https://\1)", text)
