"""The code blocks of the documents, each under its language: `python`, `yaml`, `toml`, `json`, `sh` or `text`."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "mlflow/*.md", "pipelines/**/*.md", "specs/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)


class Block(NamedTuple):
    """One block between two fences."""

    document: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    name = str(path.relative_to(ROOT))
    return [Block(name, text.count("\n", 0, each.start()) + 1, each[2], each[3]) for each in found]


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def in_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]
