import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gnflow import errors
from gnflow.cli import main

GOOD = "name: a\ndata: text\noptimizer: adamw\ntraining: {steps: 3}\n"
HEAVY = "torch mlflow polars numpy dvc datasets transformers tokenizers safetensors rich pandas"
READING = {"check", "plan", "graph", "rerun", "replay", "explain", "verify", "show", "list", "compare", "doctor"}
VERBS = [
    "run",
    "init",
    "new",
    "check",
    "plan",
    "graph",
    "explain",
    "verify",
    "schema",
    "prepare",
    "show",
    "list",
    "compare",
    "report",
    "rerun",
    "export",
    "replay",
    "track",
    "doctor",
    "ui",
    "study",
]


class Done(NamedTuple):
    code: object
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("steps", "stpes"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the entry point in this process."""
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "true")

    def called(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["gnflow", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return Done(left.value.code or 0, *capsys.readouterr())

    return called


def spawn(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gnflow", *arguments]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["check", "good.yaml", "bad.yaml"], ["explain", "good.yaml"]])
def test_what_only_reads_specs_loads_nothing_heavy(arguments: list[str], project: Path) -> None:
    code = f"""
import sys
from gnflow.cli import main
sys.argv = ["gnflow", *{arguments!r}]
try:
    main()
finally:
    print("loaded:", *sorted(set(sys.modules) & set({HEAVY!r}.split())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert not done.stderr


def test_help_lists_the_verbs_and_their_options(call: Call) -> None:
    said = call("--help")
    assert said.code == 0
    verbs = said.out.partition("Commands:")[2]
    assert [line.split()[0] for line in verbs.splitlines() if line.strip()] == VERBS
    assert "..." not in verbs  # nothing is cut off at 80 columns
    for verb in VERBS:
        options = call(verb, "--help").out
        assert ("--set" in options) is (verb in {"run", "check", "plan", "graph", "explain", "verify", "prepare"}), verb
        assert ("--json" in options) is (verb in READING), verb


def test_without_a_verb_it_shows_the_help_as_a_usage_error(call: Call) -> None:
    said = call()
    assert said.code == 2
    assert "Commands:" in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["chekc"], "Did you mean 'check'?"),
        (["complre"], "Did you mean 'compare'?"),
        (["check", "--jsn", "good.yaml"], "--json"),
        (["check"], "Missing argument 'SPEC'"),
        (["explain", "good.yaml", "a", "b"], "unexpected extra argument"),
        (["compare", "a", "--target", "x"], "Invalid value for '--target'"),
        (["run", "good.yaml", "--extend", "--fresh"], "the run that --fresh or --supersede would replace"),
    ],
)
def test_a_mistyped_command_line_gets_a_hint(arguments: list[str], hint: str, call: Call) -> None:
    said = call(*arguments)
    assert said.code == 2
    assert hint in said.err
    assert "Traceback" not in said.err


def test_version(call: Call) -> None:
    said = call("--version")
    assert said.code == 0
    assert said.out.startswith("gnflow 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "good.yaml"], 0, "good.yaml: ok"),
        (["check", "good.yaml", "--set", "training.seed=3", "--set", "training.rows=2"], 0, "good.yaml: ok"),
        (["check", "bad.yaml"], 3, "bad.yaml:4:12: unknown key `stpes` in `training`; did you mean `steps`?"),
        (["check", "god.yaml"], 3, "god.yaml: no such file; did you mean `good.yaml`?"),
        (["explain", "good.yaml", "training.steps"], 0, "training.steps = 3 (optimizer steps)"),
        (["explain", "good.yaml", "training.step"], 2, "did you mean `steps`?"),
        (["explain", "bad.yaml"], 3, "bad.yaml:4:12: unknown key `stpes`"),
        (["explain", "god.yaml"], 3, "god.yaml: no such file"),
        (["schema"], 0, "https://json-schema.org/draft/2020-12/schema"),
    ],
)
def test_exit_codes_and_messages(arguments: list[str], code: int, said: str, call: Call) -> None:
    done = call(*arguments)
    assert done.code == code
    assert said in (done.err if code and arguments[0] != "check" else done.out)
    assert "Traceback" not in done.err


def test_the_process_exits_with_the_code(project: Path) -> None:
    assert spawn("check", "bad.yaml").returncode == 3
    assert spawn("explain", "bad.yaml").returncode == 3
    assert spawn("check", "good.yaml").returncode == 0


def test_a_spec_is_found_from_any_directory(
    call: Call, project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert call("check", str(project / "good.yaml")).out == f"{project / 'good.yaml'}: ok\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.GnflowError, 1),
        (errors.DataError, 4),
        (errors.Diverged, 5),
        (errors.Preempted, 6),
        (errors.EnvironmentProblem, 7),
        (errors.DiskProblem, 8),
        (errors.Interrupted, 130),
    ],
)
def test_what_the_user_can_act_on_is_one_message_and_a_code(
    error: type[errors.GnflowError], code: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(output: Path | None) -> int:
        raise error("do this")

    monkeypatch.setattr("gnflow.commands.schema.print_schema", fail)
    assert call("schema") == (code, "", "do this\n")


def test_a_fault_of_gnflow_shows_its_traceback_and_asks_for_a_report(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnflow.commands.schema.print_schema", lambda output: 1 / 0)
    done = call("schema")
    assert done.code == 1
    assert done.err.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: division by zero" in done.err
    assert done.err.endswith("This is a fault in gnflow. Please report it, with the lines above and the spec.\n")


def test_ctrl_c_is_130_without_a_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnflow.commands.schema.print_schema", lambda output: signal.raise_signal(signal.SIGINT))
    assert call("schema") == (130, "", "")


def test_a_reader_that_leaves_early_is_no_fault(project: Path) -> None:
    shell = f"{sys.executable} -m gnflow schema | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_what_a_spec_holds_can_be_printed_in_any_encoding(project: Path) -> None:
    (project / "bad.yaml").write_text(GOOD.replace("name: a", "name: 漢"), encoding="utf-8")
    done = spawn("check", "bad.yaml", PYTHONIOENCODING="ascii")
    assert done.returncode == 3
    assert "\\u6f22" in done.stdout
    assert not done.stderr


def test_plain_text_needs_no_colour(project: Path) -> None:
    done = spawn("check", "bad.yaml", FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b" not in done.stdout + done.stderr
