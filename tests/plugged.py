"""A project with the plug-ins that docs/plugins.md shows, word for word."""

import re
from pathlib import Path

import tiny

DOC = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
TABLES = next(iter(re.findall(r"^```toml\n(.*?)^```$", DOC, flags=re.MULTILINE | re.DOTALL)))
FILES = dict(re.findall(r"^`(my_\w+\.py)`:\n\n```python\n(.*?)^```$", DOC, flags=re.MULTILINE | re.DOTALL))


def write_project(root: Path) -> Path:
    """The tiny project, with every plug-in of the page and the tables that name them."""
    tiny.write_project(root)
    (root / "letters").mkdir()
    for number in range(6):
        (root / "letters" / f"{number}.txt").write_text(
            f"Dear reader {number}, the rain falls on the hills again. " * 20
        )
    (root / "pyproject.toml").write_text(TABLES)
    for name, text in FILES.items():
        (root / name).write_text(text)
    return root


def write_spec(root: Path, optimizer: str = "lynx", name: str = "own", extra: str = "") -> Path:
    """A spec of the project as YAML."""
    spec = root / f"{name}.yaml"
    spec.write_text(
        f"""\
name: {name}
model: {{kind: decoder, layers: 1, width: 16, heads: 2}}
data: {{source: {{kind: files, paths: [text.txt]}}, tokenizer: bytes, context: 16}}
optimizer: {optimizer}
training: {{steps: 4, rows: 4, device: cpu, start: scratch, checkpoint_every: 2}}
metrics: [{{kind: loss, microbatches: 2}}, cost, update_norms]
compile: {{mode: "off"}}
tracking: none
{extra}"""
    )
    return spec
