"""A kind from outside has everything that a built-in one has, and a bad one is named in a line."""

import json
import subprocess
import sys
from pathlib import Path

import acting
import plugged
import pytest
import torch

from gnflow import compile as compile_plan
from gnflow.commands.new import write_spec
from gnflow.commands.run import make_mirrors
from gnflow.commands.track import track
from gnflow.compiler import methods
from gnflow.compiler.plan import plan
from gnflow.errors import EnvironmentProblem, SpecError
from gnflow.optim import as_torch
from gnflow.spec.explain import explain_below
from gnflow.spec.kinds import Kinds, use_kinds_of
from gnflow.spec.load import load
from gnflow.spec.named import Named
from gnflow.spec.schema import make_schema
from gnflow.study.design.load import load as load_study
from gnflow.train.journal import read
from gnflow.train.loop import run
from gnflow.train.plugins import list_plugins
from gnflow.train.run import Run
from gnflow.verify.checks import select_checks
from gnflow.verify.subject import shrink
from gnflow.workspace import Workspace

LION = plugged.FILES["my_optimizers.py"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return plugged.write_project(tmp_path / "project")


def problem(spec: Path, *sets: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(spec, sets)
    return str(caught.value)


def test_checking_a_spec_of_a_plug_in_imports_no_torch(project: Path) -> None:
    code = (
        f"from gnflow.spec.load import load; import sys; load({str(plugged.write_spec(project))!r}); "
        "import gnflow.plugin; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_its_kind_and_its_keys_are_suggested_where_they_are_misspelt(project: Path) -> None:
    spec = plugged.write_spec(project)
    assert "own.yaml" in problem(plugged.write_spec(project, "{kind: lyon}"))
    assert "did you mean `lion`?" in problem(spec, "optimizer=lyon")
    found = problem(plugged.write_spec(project, "{kind: lion, bet: 0.9}"))
    assert "own.yaml:4:25: unknown key `bet` in `optimizer` (lion); did you mean `beta`?" in found
    assert "expected a number of at least 0 and less than 1, got `2`" in problem(spec, "optimizer.beta=2")


def test_explain_says_what_its_class_says(project: Path) -> None:
    loaded = load(plugged.write_spec(project))
    with use_kinds_of(loaded.workspace):
        [row] = explain_below(loaded, "optimizer.memory")
        assert row.help == "Weight of the old momentum in the new one."
        assert (
            "`lion`" in str(explain_below(loaded, "optimizer")[0].allowed)
            or "lion" in explain_below(loaded, "optimizer")[0].allowed
        )


def test_the_schema_of_the_project_has_it_and_the_committed_one_has_not(project: Path) -> None:
    with use_kinds_of(Workspace(project)):
        assert "memory" in make_schema()["$defs"]["LionMethod"]["properties"]
    assert "LionMethod" not in make_schema()["$defs"]


def test_a_spec_is_scaffolded_for_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert write_spec("idea", optimizer="lion") == 0
    text = (project / "idea.yaml").read_text()
    assert "# Weight of the old momentum in the new one." in text
    assert load(project / "idea.yaml").experiment.optimizer.kind == "lion"


def test_the_plan_has_its_costs_and_its_routes(project: Path) -> None:
    planned = plan(load(plugged.write_spec(project)).experiment)
    assert {row.method for row in planned.parameters} == {"lion"}
    assert planned.memory["optimizer"] >= planned.memory["parameters"]  # its momentum
    mixed = "{kind: muon, rules: [{match: attention, use: {kind: lion, beta: 0.5}}]}"
    rows = plan(load(plugged.write_spec(project, mixed)).experiment).parameters
    assert {row.method for row in rows if "attention" in row.name} == {"lion"}
    assert {row.method for row in rows} == {"lion", "muon", "adamw"}


@pytest.mark.parametrize(
    "optimizer",
    [
        "lion",
        "{kind: gauss_newton, inner: lion, inner_steps: 3}",
        "{kind: muon, rules: [{match: attention, use: lion}]}",
    ],
)
def test_every_check_of_verify_holds_for_it(project: Path, optimizer: str) -> None:
    small = shrink(load(plugged.write_spec(project, optimizer)).experiment)
    for _, check in select_checks(small, compiling=False):
        check(small)


def test_every_check_of_verify_holds_for_its_model_under_gauss_newton(project: Path) -> None:
    spec = plugged.write_spec(project, "{kind: gauss_newton, inner: muon, inner_steps: 3, blocks: layer}")
    small = shrink(load(spec, ["model={kind: windowed, window: 3}"]).experiment)
    for _, check in select_checks(small, compiling=False):
        check(small)


def test_a_run_that_was_interrupted_goes_on_bit_for_bit(project: Path) -> None:
    experiment = load(plugged.write_spec(project, "{kind: gauss_newton, inner: lion, inner_steps: 2}")).experiment
    whole = run(experiment, Workspace(project), project / "runs" / "whole")
    with pytest.raises(acting.Crash):
        run(experiment, Workspace(project), project / "runs" / "part", watches=[acting.at(3)])
    resumed = run(experiment, Workspace(project), project / "runs" / "part")
    one, two = (next((each.directory / "model").glob("*.safetensors")).read_bytes() for each in (whole, resumed))
    assert one == two


def test_what_a_run_used_is_in_its_provenance_and_a_change_is_seen(project: Path) -> None:
    done = run(load(plugged.write_spec(project)).experiment, Workspace(project))
    [session] = json.loads((done.directory / "provenance.json").read_text())["sessions"]
    [used] = session["plugins"]
    assert (used["group"], used["kind"], used["file"]) == ("optimizers", "lion", str(project / "my_optimizers.py"))
    assert used["replaces"] == "gnflow.optim.lion:LionRule"
    (project / "my_optimizers.py").write_text(LION + "\n# another line\n")
    again = run(Run.load(done.directory).experiment, Workspace(project), project / "runs" / "again")
    from gnflow.study.circumstances import find_changes

    assert "plug-in lion" in find_changes(done, again.directory)


def test_a_file_can_be_tried_without_a_pyproject(project: Path) -> None:
    (project / "pyproject.toml").unlink()
    spec = plugged.write_spec(project, "{kind: lion, memory: 0.5}")
    command = [sys.executable, "-m", "gnflow", "--plugin", project / "my_optimizers.py", "check", spec]
    assert subprocess.run(command, check=False).returncode == 0
    assert "unknown key `memory` in `optimizer` (lion)" in problem(spec)


def test_the_transform_serves_a_loop_of_ones_own(project: Path) -> None:
    with use_kinds_of(Workspace(project)):
        rule = load(plugged.write_spec(project)).experiment.optimizer
    transform = methods.build_transform(rule, lambda count: 1.0)
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = as_torch(transform, [weight])
    assert optimizer.param_groups[0]["lr"] == 1e-3
    weight.grad = torch.ones(3, 2)
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.step()
    assert torch.equal(weight.detach(), torch.full((3, 2), 0.5))


def test_a_tracker_of_the_project_is_told_every_step_and_can_be_refilled(project: Path) -> None:
    loaded = load(plugged.write_spec(project), ["tracking=sheet"])
    with use_kinds_of(loaded.workspace):
        watches = make_mirrors(loaded.experiment, loaded.workspace, print)
        done = run(loaded.experiment, loaded.workspace, watches=watches)
    sheet = done.directory.with_suffix(".tsv")
    told = sheet.read_text()
    recorded = read(done.directory / "journal.jsonl").steps.values()
    losses = [f"{step.step}\t{step.values['loss/train']}" for step in recorded if "loss/train" in step.values]
    assert len(losses) == 4
    assert told.splitlines() == [*losses, "FINISHED"]
    sheet.unlink()
    assert track([done.directory]) == 0
    assert sheet.read_text() == told


def swapped(old: str, new: str) -> str:
    assert old in LION
    return LION.replace(old, new)


BAD = {
    "a syntax error": (swapped("class Lion(FirstOrder):", "class Lion(FirstOrder)"), "expected ':'"),
    "an import that fails": ("import nowhere_at_all\n" + LION, "No module named 'nowhere_at_all'"),
    "a module that raises": ("1 / 0\n" + LION, "ZeroDivisionError: division by zero (my_optimizers.py:1)"),
    "no such class": (swapped("class Lion(", "class Tiger("), "the module has no `Lion`"),
    "a class of another kind": (swapped("(FirstOrder)", ""), "not a class derived from gnflow.plugin.FirstOrder"),
    "no kind": (swapped('    kind: Literal["lion"] = "lion"\n', ""), "the class has no `kind`"),
    "another kind": (swapped('["lion"] = "lion"', '["tiger"] = "tiger"'), "the class calls itself `tiger`"),
    "a field that every optimizer has": (
        swapped("    beta: Fraction = 0.9", "    clip: Fraction = 0.5\n    beta: Fraction = 0.9"),
        "`clip` is already an attribute of every optimizer",
    ),
    "no factory": (swapped('    factory = "my_optimizers:lion"\n', ""), "the class has no `factory`"),
}
BAD_WHEN_BUILT = {
    "a factory that is missing": (swapped("def lion(", "def tiger("), "no function"),
    "a factory with other arguments": (swapped("memory: float, ", ""), "TypeError: lion() got an unexpected keyword"),
    "a factory that raises": (swapped("    def init(", "    raise OSError('lost')\n    def init("), "OSError: lost"),
    "a factory of nothing": (
        swapped("    return Transform(init, update)", ""),
        "returned nothing, expected Transform",
    ),
    "an update of another shape": (swapped(".sign() for", ".sign().sum() for"), "has shape (); expected (2, 257, 16)"),
    "a state that is no tensors": (swapped("make_counter(params)", "3"), "its state holds 3 at `updates`"),
    "a state with a plain dict": (
        swapped(
            "return LionState(make_counter(params), make_rate(learning_rate, params), momentum)", "return momentum"
        ),
        "its state is a dict, expected a NamedTuple",
    ),
    "a rate of another name": (
        swapped("    learning_rate: Scalar", "    size: Scalar").replace("state.learning_rate", "state.size"),
        "its state has no field `learning_rate`",
    ),
    "a rate of another type": (
        swapped("make_rate(learning_rate, params)", "make_rate(1.0, params).float()"),
        "expected 0-D float64",
    ),
    "an update that raises": (swapped("        old = state.momentum", "        old = state.past"), "AttributeError"),
    "no pair": (swapped("return updates, LionState", "return LionState"), "expected (updates, state)"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_plug_in_is_one_line_that_names_it_its_file_and_the_cause(project: Path, what: str) -> None:
    text, cause = BAD[what]
    (project / "my_optimizers.py").write_text(text)
    with pytest.raises(EnvironmentProblem) as caught:
        load(plugged.write_spec(project))
    said = str(caught.value)
    assert cause in said
    assert "lion" in said
    assert "my_optimizers" in said
    assert "\n" not in said
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("what", BAD_WHEN_BUILT)
def test_a_bad_factory_or_transform_is_found_before_anything_is_allocated(project: Path, what: str) -> None:
    text, cause = BAD_WHEN_BUILT[what]
    (project / "my_optimizers.py").write_text(text)
    experiment = load(plugged.write_spec(project)).experiment
    with pytest.raises(EnvironmentProblem) as caught:
        plan(experiment)
    said = str(caught.value)
    assert cause in said
    assert "optimizer `lion` (pyproject.toml:2, my_optimizers:Lion)" in said
    assert "\n" not in said


def test_a_missing_module_is_named_with_the_places_where_it_was_looked_for(project: Path) -> None:
    (project / "my_optimizers.py").unlink()
    with pytest.raises(EnvironmentProblem, match=r"there is no module `my_optimizers` beside .*pyproject.toml"):
        load(plugged.write_spec(project))


def test_a_name_that_is_taken_is_an_error_that_names_both_places(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.gnflow.optimizers]\n\nmuon = "my_optimizers:Lion"\n')
    with pytest.raises(EnvironmentProblem) as caught:
        load(plugged.write_spec(project, "muon"))
    assert "gnflow (gnflow.spec.rules:MuonRule)" in str(caught.value)
    assert "pyproject.toml:3 (my_optimizers:Lion)" in str(caught.value)


def test_a_built_in_kind_that_came_later_gives_way_to_that_of_a_project(project: Path) -> None:
    spec = plugged.write_spec(project)
    with use_kinds_of(Workspace(project)):
        assert load(spec).experiment.optimizer.factory == "my_optimizers:lion"
    (project / "pyproject.toml").unlink()
    built_in = load(spec).experiment
    assert built_in.optimizer.factory == "gnflow.optim.lion:lion"
    assert list_plugins(built_in) == []


def test_two_kinds_from_outside_do_not_give_way_to_each_other(project: Path) -> None:
    twice = [Named("optimizers", "lion", f"{name}:Lion", name) for name in ("one", "two")]
    assert Kinds(None, (twice[0],)).find("optimizers", "lion").replaces == "gnflow.optim.lion:LionRule"  # type: ignore[union-attr]
    with pytest.raises(EnvironmentProblem, match=r"named twice: by one \(one:Lion\) and by two \(two:Lion\)"):
        Kinds(None, tuple(twice))


def test_what_a_spec_gets_wrong_is_told_at_its_place(project: Path) -> None:
    text = LION.replace("import FirstOrder,", "import FirstOrder, refuse,").replace(
        "class LionState",
        """    from pydantic import field_validator

    @field_validator("beta")
    @classmethod
    def _not_half(cls, beta: float) -> float:
        if beta == 0.5:
            raise refuse("half is not allowed")
        return beta


class LionState""",
    )
    (project / "my_optimizers.py").write_text(text)
    spec = plugged.write_spec(project, "{kind: lion, beta: 0.5}")
    assert "own.yaml:4:31: half is not allowed" in problem(spec)


def test_a_broken_plug_in_that_no_spec_uses_hurts_nobody(project: Path) -> None:
    (project / "my_optimizers.py").write_text("1 / 0\n")
    assert load(plugged.write_spec(project, "adamw")).experiment.optimizer.kind == "adamw"
    assert "did you mean `adamw`?" in problem(plugged.write_spec(project, "adamv"))
    assert "unknown key `bet`" in problem(plugged.write_spec(project, "{kind: adamw, bet: 3}"))


def test_two_projects_may_have_modules_of_one_name(tmp_path: Path) -> None:
    one, two = (plugged.write_project(tmp_path / name) for name in ("one", "two"))
    (two / "my_optimizers.py").write_text(LION.replace("beta: Fraction = 0.9", "beta: Fraction = 0.7"))
    betas = [load(plugged.write_spec(root)).experiment.optimizer.beta for root in (one, two, one)]  # type: ignore[union-attr]
    assert betas == [0.9, 0.7, 0.9]


def test_an_installed_distribution_brings_kinds_by_entry_point(tmp_path: Path) -> None:
    root = plugged.write_project(tmp_path / "project")
    (root / "pyproject.toml").unlink()
    site = tmp_path / "site"
    (site / "lions-1.2.dist-info").mkdir(parents=True)
    (root / "my_optimizers.py").rename(site / "my_optimizers.py")
    (site / "lions-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lions\nVersion: 1.2\n")
    (site / "lions-1.2.dist-info" / "entry_points.txt").write_text(
        "[gnflow.optimizers]\nlion = my_optimizers:Lion\n"
    )  # fmt: skip
    code = f"""
import sys
sys.path.append({str(site)!r})
from gnflow.spec.load import load
from gnflow.spec.named import Named
experiment = load({str(plugged.write_spec(root))!r}).experiment
from gnflow.train.plugins import list_plugins
print(list_plugins(experiment)[0].version, list_plugins(experiment)[0].replaces)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "lions 1.2 gnflow.optim.lion:LionRule"


def test_a_weight_that_no_stage_of_its_model_reads_is_named(project: Path) -> None:
    text = plugged.FILES["my_models.py"]
    read = 'frozenset({f"{name}.up", f"{name}.down"})'
    assert read in text
    (project / "my_models.py").write_text(text.replace(read, 'frozenset({f"{name}.up"})'))
    experiment = load(plugged.write_spec(project, "adamw"), ["model=windowed"]).experiment
    with pytest.raises(EnvironmentProblem, match=r"model `windowed` .*: no stage .* reads the weight `blocks.0.down`"):
        plan(experiment)


def test_its_model_trains_under_muon(project: Path) -> None:
    spec = plugged.write_spec(project, "{kind: muon, microbatches: 2}")
    program = compile_plan(plan(load(spec, ["model=windowed"]).experiment), compiled=False)
    params = program.initial()
    assert set(params) == {"embedding", "head", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"}
    done = run(load(spec, ["model=windowed"]).experiment, Workspace(project))
    assert done.metrics["loss/held_out"][-1] < done.metrics["loss/held_out"][0]


def test_its_source_and_its_metric_serve_a_run_like_those_built_in(project: Path) -> None:
    sets = ["data.source=letters", "metrics=[{kind: top, ids: 3}, loss, cost]"]
    done = run(load(plugged.write_spec(project), sets).experiment, Workspace(project))
    shares = done.metrics["top/share"].to_list()
    assert len(shares) == 5
    assert all(0 <= share <= 1 for share in shares)
    [session] = json.loads((done.directory / "provenance.json").read_text())["sessions"]
    assert {plugin["kind"] for plugin in session["plugins"]} == {"lion", "letters", "top"}
    assert Run.load(done.directory).experiment == load(plugged.write_spec(project), sets).experiment


def test_a_study_tunes_the_fields_of_a_plug_in(project: Path) -> None:
    plugged.write_spec(project)
    study = project / "pipelines" / "rates"
    study.mkdir(parents=True)
    (study / "study.yaml").write_text(
        """\
name: rates
targets: [5.0]
seeds: [1, 2]
tuning: {trials: 2, method: random, space: {optimizer.beta: {low: 0.5, high: 0.9, scale: linear}}}
arms: {lion: ../../own.yaml}
"""
    )
    design = load_study(study)
    assert [0.5 <= trial.values["optimizer.beta"] <= 0.9 for trial in design.find_arm("lion").trials] == [True, True]  # type: ignore[operator]


def test_a_built_in_optimizer_is_one_file_and_one_row(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gnflow.optim
    from gnflow.spec.built_in import BUILT_IN

    (project / "in_house.py").write_text(
        LION.replace("my_optimizers:lion", "in_house:lion").replace('["lion"] = "lion"', '["tiger"] = "tiger"')
    )
    (project / "pyproject.toml").unlink()
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setitem(BUILT_IN["optimizers"], "tiger", "in_house:Lion")  # type: ignore[arg-type]
    monkeypatch.setattr("gnflow.spec.kinds._read_kinds", lambda project, changed, tried: Kinds(project, tried))
    experiment = load(plugged.write_spec(project, "{kind: gauss_newton, inner: tiger, inner_steps: 2}")).experiment
    assert run(experiment, Workspace(project)).summary["status"] == "complete"
    assert gnflow.optim.tiger.__module__ == "in_house"  # type: ignore[attr-defined]
    monkeypatch.delattr("gnflow.optim.tiger")


LARS = '''
from typing import Literal, NamedTuple

from gnflow.plugin import FirstOrder, Params, Rate, Scalar, Transform, make_counter, make_rate


class Lars(FirstOrder):
    """Each tensor's step is a part of its own norm."""

    factory = "my_lars:lars"
    kind: Literal["lars"] = "lars"
    learning_rate: Rate = 1e-2
    """Part of the norm."""


class LarsState(NamedTuple):
    updates: Scalar
    learning_rate: Scalar
    sizes: Params


SEEN = []


def lars(learning_rate, schedule):
    def init(params):
        sums = {name: w.sum() for name, w in params.items()}
        return LarsState(make_counter(params), make_rate(learning_rate, params), sums)

    def update(gradients, state, params):
        SEEN.append({name: tuple(g.shape) for name, g in gradients.items()})
        lr = state.learning_rate * schedule(state.updates)
        updates = {name: -lr * params[name].norm() / (g.norm() + 1e-9) * g for name, g in gradients.items()}
        return updates, LarsState(state.updates + 1, state.learning_rate, state.sizes)

    return Transform(init, update, each=True)
'''


def test_a_transform_that_asks_sees_every_tensor_by_itself(project: Path) -> None:
    (project / "my_lars.py").write_text(LARS)
    text = plugged.TABLES.replace("[tool.gnflow.models]", 'lars = "my_lars:Lars"\n\n[tool.gnflow.models]')
    (project / "pyproject.toml").write_text(text)
    rule = "{match: '(query|key|value|output).weight$', use: muon}"
    loaded = load(plugged.write_spec(project, f"{{kind: lars, rules: [{rule}]}}"))
    planned = plan(loaded.experiment)
    own = {row.name: row.shape for row in planned.parameters if row.method == "lars"}
    program = compile_plan(planned, compiled=False)
    state = program.init()
    state, _ = program.step(state, torch.randint(200, (1, 4, 17)))
    import my_lars  # type: ignore[import-not-found]

    assert {name.partition(":")[2]: shape for name, shape in my_lars.SEEN[-1].items()} == own
    small = shrink(loaded.experiment)
    for _, check in select_checks(small, compiling=False):
        check(small)


def test_as_torch_gives_it_every_tensor_by_itself_and_its_state_can_be_loaded(project: Path) -> None:
    (project / "my_lars.py").write_text(LARS)
    scope: dict[str, object] = {}
    exec(LARS, scope)
    make = scope["lars"]
    shapes = {"a": (1, 5), "b": (3, 5), "c": (3, 5), "d": (4,), "e": ()}
    weights = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    optimizer = as_torch(make(0.1, lambda count: 1.0), weights.items())  # type: ignore[operator]
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert scope["SEEN"][-1] == shapes  # type: ignore[index]
    for weight in weights.values():
        assert torch.allclose(weight.detach(), torch.full_like(weight, 0.9))
    again = as_torch(make(0.1, lambda count: 1.0), weights.items())  # type: ignore[operator]
    again.load_state_dict(optimizer.state_dict())
    again.step()
    assert scope["SEEN"][-1] == shapes  # type: ignore[index]
