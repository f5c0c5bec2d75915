"""Write the reference of all keys of a spec, from the classes that check specs."""

from collections.abc import Iterator

from pydantic_core import PydanticUndefined

from gnflow.spec.base import Spec, find_kind
from gnflow.spec.canonical import format_value, make_plain
from gnflow.spec.grammar import find_help, list_shapes, walk_models

SECTIONS = {
    "": "The run",
    "model": "Models",
    "data": "Data",
    "optimizer": "Optimizers",
    "training": "Training",
    "metrics": "Metrics",
    "compile": "Compilation",
    "tracking": "Tracking",
    "tuning": "Tuning",
}


def join_lines(text: str) -> str:
    """Return a text on one line, as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def list_options(model: type[Spec]) -> str:
    """Return a table of the keys of `model`: name, default, allowed values with unit, and help."""
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for name, shape in list_shapes(model).items():
        if name == "kind":
            continue
        allowed = shape.allowed + (f" ({shape.unit})" if shape.unit else "")
        rows.append(f"| `{name}` | {_show_default(model, name)} | {join_lines(allowed)} | "
                    f"{join_lines(find_help(model, name))} |")  # fmt: skip
    return "\n".join(rows) + "\n" if len(rows) > 2 else "It has no keys of its own.\n"


def _show_default(model: type[Spec], name: str) -> str:
    default = model.model_fields[name].get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, Spec):
        return f"`{find_kind(type(default))}`" if find_kind(type(default)) else "its defaults"
    if isinstance(default, tuple) and default and all(isinstance(item, Spec) for item in default):
        return ", ".join(f"`{find_kind(type(item))}`" for item in default)
    return "none" if default in (None, ()) else f"`{join_lines(format_value(make_plain(default)))}`"


def list_models() -> Iterator[tuple[str, type[Spec]]]:
    """Yield every class of the grammar once, with the shallowest place at which it may stand (`optimizer.inner`)."""
    seen: set[type[Spec]] = set()
    for path, model in walk_models():
        if model not in seen:
            seen.add(model)
            yield ".".join(str(step) for step in path if isinstance(step, str)), model


def write_keys() -> dict[str, str]:
    """Return the pages of the reference by their places in the site: one for each section of a spec, and an index."""
    pages: dict[str, list[str]] = {section: [f"# {title}\n"] for section, title in SECTIONS.items()}
    for place, model in list_models():
        kind = find_kind(model)
        title = f"`{place}`" if place else "A spec"
        summary = " ".join((model.__doc__ or "").split())
        pages[place.partition(".")[0]].append(
            f"## {title}{f': `{kind}`' if kind else ''}\n\n{summary}\n\n{list_options(model)}"
        )
    pages[""][0] += (
        "\nA spec is a YAML file of these keys. Keys with a default may be left out, and a mapping with a `kind` may "
        "be written as the name of the kind alone. These pages say what `gnflow schema` and `gnflow explain` say. "
        "Sections: "
        + ", ".join(f"[{title.lower()}](spec_{name}.md)" for name, title in SECTIONS.items() if name)
        + ".\n"
    )
    return {f"reference/{f'spec_{name}' if name else 'spec'}.md": "\n".join(texts) for name, texts in pages.items()}
