"""What is read, a spec above all, is data: nothing in it is ever executed, imported or looked up by a dotted name."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnflow.spec.load import load
from gnflow.spec.problems import SpecProblems

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gnflow").rglob("*.py"))
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "runpy", "code", "pydoc"}
CALLS = {
    "eval", "exec", "compile", "__import__", "importlib.import_module", "importlib.__import__", "os.system", "os.popen",
    "torch.load", "torch.save", "torch.hub.load", "yaml.load", "numpy.load", "polars.DataFrame.deserialize",
    "polars.LazyFrame.deserialize",
}  # fmt: skip
# Modules whose names come from our own tables or from classes, never from a file.
OURS = {
    (
        "gnflow/models/huggingface/export.py",
        "AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True, "
        "trust_remote_code=False)",
    ),
    ("gnflow/__init__.py", "import_module(_HOMES[name])"),
    ("gnflow/optim/__init__.py", "import_module(_HOMES[name])"),
    ("gnflow/spec/imports.py", "importlib.import_module(name)"),
    ("gnflow/study/work/on_ray.py", "import_module('ray')"),
    ("gnflow/track/system.py", "importlib.import_module(f'mlflow.system_metrics.metrics.{name}_monitor')"),
}


def found_in(source: str) -> list[tuple[int, str]]:
    """Lines, and what on them could execute what was read."""
    tree = ast.parse(source)
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        if isinstance(node, ast.ImportFrom) and node.module:
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, name.name) for name in names if name.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                found.append((node.lineno, module))
            case ast.Call(func=function) if dangerous(node, full_name(function, full)):
                found.append((node.lineno, ast.unparse(node)))
    return found


def full_name(function: ast.expr, full: dict[str, str]) -> str:
    head, dot, rest = ast.unparse(function).partition(".")
    return full.get(head, head) + dot + rest


def dangerous(call: ast.Call, name: str) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    match name:
        case "numpy.load":  # refuses pickles unless it is told otherwise
            return None in keywords or "allow_pickle" in keywords
        case _:
            executes = any(word in keywords for word in ("shell", "trust_remote_code"))
            return name in CALLS or name.startswith("pickle.") or executes


def test_nothing_that_is_read_can_execute_code() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), code) for path in SOURCES for _, code in found_in(path.read_text("utf-8"))
    }
    assert found == OURS


@pytest.mark.parametrize("spec", ["muon", "ml_fop_soap_emu3"])
@pytest.mark.parametrize("key", ["factory", "ready"])
def test_a_spec_cannot_say_which_function_is_called(spec: str, key: str) -> None:
    with pytest.raises(SpecProblems, match=f"unknown key `{key}`"):
        load(ROOT / "specs" / f"{spec}.yaml", [f"data.source.{key}=os:system"])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from cloudpickle import loads", "import torch as t\nt.load(path)", "eval(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from importlib import import_module\nimport_module(name)",
        "import subprocess\nsubprocess.run(line, shell=True)", "from os import system\nsystem(a)",
    ],
)  # fmt: skip
def test_the_search_finds(code: str) -> None:
    assert found_in(code)
    assert not found_in("import numpy as np\nnp.load(path)\nre.compile(text)")


EXECUTION = (
    "exec", "import", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen",
    "pickle.find_class", "marshal.loads", "ctypes.dlopen", "socket.connect", "socket.getaddrinfo", "os.putenv",
    "os.remove", "os.rename", "os.mkdir",
)  # fmt: skip


class Watch:
    """The interpreter's own record of what it is asked to do (PEP 578)."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, tuple[object, ...]]] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        reads = event == "open" and arguments[1] in ("r", "rb")
        if self.on and (event.startswith(EXECUTION) or (event == "open" and not reads)):
            self.seen.append((event, arguments))

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


HARMFUL = [
    "__import__('os').system('touch taken')", "!!python/object/apply:os.system ['touch taken']", "os.system",
    "!!python/name:os.system", "${oc.env:HOME}", "${jndi:ldap://127.0.0.1/a}", "{{ 7 * 7 }}", "`touch taken`",
    "$(touch taken)", "!include /etc/passwd", "!ENV HOME", "torch.optim.SGD", "gnflow.cli:main", "lambda: 0",
    "{_target_: os.system, _args_: [touch taken]}", "cos\nsystem\n(S'touch taken'\ntR.", "file:///etc/passwd", "%s%n",
]  # fmt: skip
PLACES = [
    "name: {}", "model: {}", "data: {{source: {{kind: files, paths: [{}]}}}}", "optimizer: {}",
    "optimizer: {{kind: {}}}",
    "training: {{start: {}}}", "training: {{steps: {}}}", "metrics: [{}]", "tracking: {{kind: mlflow, experiment: {}}}",
    "extends: {}", "{}: 1", "? {}", "optimizer: {{kind: muon, rules: [{{match: {}, use: adamw}}]}}", "{}",
]  # fmt: skip
texts = st.sampled_from(HARMFUL) | st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), text=texts, quoted=st.booleans())
def test_no_spec_is_ever_executed(watch: Watch, tmp_path: Path, place: str, text: str, quoted: bool) -> None:
    (tmp_path / "dvc.yaml").touch()
    spec = tmp_path / "spec.yaml"
    value = "'" + text.replace("'", "''") + "'" if quoted else text
    spec.write_text(place.format(value) + "\ndata: text\noptimizer: adamw\n", encoding="utf-8")
    with suppress(SpecProblems):  # whatever is imported at the first mistake is imported now
        load(spec)
    with watch.watching(), suppress(SpecProblems):
        load(spec)
    assert watch.seen == []
    assert {path.name for path in tmp_path.iterdir()} == {"dvc.yaml", "spec.yaml"}


def test_the_watch_sees(watch: Watch, tmp_path: Path) -> None:
    with watch.watching():
        exec("x = 1")
        (tmp_path / "taken").touch()
        (tmp_path / "taken").write_text("x")
    assert {event for event, _ in watch.seen} >= {"exec", "open"}
