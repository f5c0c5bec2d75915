"""What the README says is what happens."""

import re
from pathlib import Path

import pytest

from gnflow.errors import SpecError
from gnflow.spec.load import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SHOWN_ERROR = next(text for kind, text in BLOCKS if kind == "text" and text.startswith("my_run.yaml:"))


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCKS if found == kind]


def test_the_spec_it_shows_is_valid(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    (tmp_path / "my_run.yaml").write_text(text)
    assert load(tmp_path / "my_run.yaml").experiment.training.target is not None


def test_the_error_it_shows_is_the_one_that_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [text] = blocks("yaml")
    for right, wrong in re.findall(r"^ +\d+ \| ( +(\w+): .*)$", SHOWN_ERROR, flags=re.MULTILINE):
        text = re.sub(rf"^ +{wrong}: .*$", right, text, flags=re.MULTILINE)
    (tmp_path / "my_run.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        load(Path("my_run.yaml"))
    assert str(caught.value).strip() == SHOWN_ERROR.strip()


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(r'src(?:set)?="([^"]+)"', README)
    assert [link for link in links if link.startswith("docs/images/")]
    assert not [link for link in links if not (ROOT / link).exists()]
    images = [path for path in (ROOT / "docs" / "images").iterdir() if path.suffix in (".svg", ".png")]
    assert max(path.stat().st_size for path in images) < 200_000
    assert max(map(len, README.splitlines())) <= 160


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE)) <= targets
    assert {"setup", "run", "repro", "test", "check", "gpu", "clean", "help"} <= targets
