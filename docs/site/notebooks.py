"""Read notebooks: their pages for the site, and the code of their cells for the tests."""

import json
from pathlib import Path


def read_cells(path: Path) -> list[tuple[str, str]]:
    """Return the cells of a notebook: `markdown` or `code`, and the text."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]


def write_page(path: Path) -> str:
    """Return a notebook as a page."""
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in read_cells(path)]
    parts.append(f"[Download this notebook]({path.name}). The tests run all of its cells.")
    return "\n\n".join(parts) + "\n"
