"""Copy the pages of docs/ and every file of the repository that they link to, with links that hold in the site."""

import os
import re
import shutil
from pathlib import Path, PurePosixPath

LINK = re.compile(r"(\]\()((?![a-z]+:|#)[^)\s#]+)")
OUTSIDE = "repository"
"""The folder of the site that holds files from outside docs/, under their paths in the repository."""


def find_place(path: str) -> str:
    """Return where a file of the repository lies in the site; both paths are relative, with `/`."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/").removesuffix(".ipynb") + (".md" if path.endswith(".ipynb") else "")
    return f"{OUTSIDE}/{path}"


def rewrite_links(text: str, path: str) -> tuple[str, set[str]]:
    """Return a page of the repository with its links as they are in the site, and the files that it links to."""
    found: set[str] = set()

    def rewrite(match: re.Match[str]) -> str:
        linked = os.path.normpath(PurePosixPath(path).parent / match[2])
        found.add(linked)
        return match[1] + os.path.relpath(find_place(linked), PurePosixPath(find_place(path)).parent)

    return "".join(part if part.startswith("```") else LINK.sub(rewrite, part) for part in _split_fences(text)), found


def _split_fences(text: str) -> list[str]:
    return re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)


def copy_pages(root: Path, site: Path, paths: set[str], written: set[str]) -> set[str]:
    """Copy files of the repository into the site, with all that they link to, and return the paths of the pages.

    `written` are places that something else writes. Raises FileNotFoundError if a link leads nowhere.
    """
    waiting, seen = sorted(paths), set(paths)
    while waiting:
        path = waiting.pop()
        place = site / find_place(path)
        if find_place(path) in written:
            continue
        if not (root / path).is_file():
            raise FileNotFoundError(f"{path}: a page links to it, and it is not a file")
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".md"):
            text, linked = rewrite_links((root / path).read_text(), path)
            place.write_text(text)
            waiting += sorted(linked - seen)
            seen |= linked
        else:
            shutil.copyfile(root / path, place)
    return {path for path in seen if path.endswith(".md")}
