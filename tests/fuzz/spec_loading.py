"""Any bytes as a spec file: an experiment that its resolved text gives again, or a SpecError that can be shown."""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gnflow.errors import SpecError
from gnflow.spec.load import format_resolved, load
from gnflow.spec.schema import make_schema

SPECS = Path(__file__).parents[2] / "specs"


@cache
def project() -> Path:
    """Where the spec is put: a directory with another spec that it may extend."""
    root = Path(tempfile.mkdtemp(prefix="fuzz_specs_"))
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "base.yaml").write_text("model: {kind: decoder, layers: 1}\ntraining: {seed: 3}\n")
    return root


def check(content: bytes) -> SpecError | None:
    """The refusal, if it is refused. Raises what should not be raised."""
    path = project() / "spec.yaml"
    path.write_bytes(content)
    try:
        text = format_resolved(load(path).experiment)
    except SpecError as error:
        str(error)
        return error
    path.write_text(text)
    assert format_resolved(load(path).experiment) == text, "its resolved text gives another experiment"
    return None


def seeds() -> Iterator[bytes]:
    """What fuzzing begins with: the shipped specs, whole."""
    for path in sorted(SPECS.rglob("*.yaml")):
        try:
            text = format_resolved(load(path).experiment)
        except SpecError:
            continue  # a part, for others to extend
        yield path.read_bytes()
        yield text.encode()
    yield b"extends: base.yaml\nname: x\ndata: {context: &a 8}\noptimizer: muon\n"


def words() -> list[str]:
    """Keys and kinds of the grammar."""
    found: set[str] = set()

    def walk(value: object) -> None:
        match value:
            case dict():
                found.update(value.get("properties", {}))
                found.update(text for text in (value.get("const"), *value.get("enum", ())) if isinstance(text, str))
                for inner in value.values():
                    walk(inner)
            case list():
                for inner in value:
                    walk(inner)

    walk(make_schema())
    return sorted(found)
