from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gnflow.spec.data import Files, Tokens
from gnflow.spec.load import Loaded, load
from gnflow.spec.optimizer import AdamW, GaussNewton, Muon
from gnflow.spec.problems import SpecProblems
from gnflow.spec.training import Loss

Write = Callable[[str, str], Path]

BASE = """\
name: base
data: {source: shakespeare, context: 128}
optimizer:
  kind: gauss_newton
  inner: {kind: muon, learning_rate: 0.05, ns_steps: 7}
training:
  steps: 12
  seed: 1
"""


def said(path: Path, sets: Sequence[str] = ()) -> list[str]:
    with pytest.raises(SpecProblems) as raised:
        load(path, sets)
    return [f"{problem.origin}: {problem.sentence}" for problem in raised.value.problems]


def origin(loaded: Loaded, key: str) -> str:
    path = tuple(int(step) if step.isdigit() else step for step in key.split("."))
    return str(loaded.origins[path])


class TestExtends:
    def test_the_later_file_wins_key_by_key(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        write("specs/longer.yaml", "extends: base.yaml\ntraining: {steps: 50, rows: 8}\n")
        path = write("specs/mine.yaml", "extends: [base.yaml, longer.yaml]\nname: mine\ntraining: {rows: 4}\n")
        loaded = load(path)
        training = loaded.experiment.training
        assert (loaded.experiment.name, training.steps, training.rows, training.seed) == ("mine", 50, 4, 1)
        assert origin(loaded, "training.seed") == "specs/base.yaml:8:9"
        assert origin(loaded, "training.steps") == "specs/longer.yaml:2:19"
        assert origin(loaded, "training.rows") == "specs/mine.yaml:3:18"
        assert origin(loaded, "training.device") == "default"
        assert origin(loaded, "training") == "specs/mine.yaml:3:1"

    def test_another_kind_takes_nothing_over(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        path = write("specs/mine.yaml", "extends: base.yaml\noptimizer: {kind: muon, ns_steps: 3}\n")
        assert load(path).experiment.optimizer == Muon(ns_steps=3)
        path = write("specs/mine.yaml", "extends: base.yaml\noptimizer: {inner: {kind: adamw}}\n")
        assert load(path).experiment.optimizer == GaussNewton(inner=AdamW())

    def test_the_same_kind_keeps_what_the_base_says_however_it_is_written(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        expected = GaussNewton(inner=Muon(learning_rate=0.05, ns_steps=7))
        for inner in ("muon", "{kind: muon}", "{}"):
            path = write("specs/mine.yaml", f"extends: base.yaml\noptimizer: {{inner: {inner}}}\n")
            assert load(path).experiment.optimizer == expected

    def test_a_shorthand_in_the_base_can_be_refined(self, write: Write) -> None:
        write("specs/base.yaml", "name: a\ndata: text\noptimizer: muon\ntraining: {steps: 3}\n")
        path = write("specs/mine.yaml", "extends: base.yaml\noptimizer: {ns_steps: 3}\ndata: {context: 32}\n")
        experiment = load(path).experiment
        assert experiment.optimizer == Muon(ns_steps=3)
        assert experiment.data.context == 32

    def test_a_shorthand_over_a_mapping_without_kind_keeps_it(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        path = write("specs/mine.yaml", "extends: base.yaml\ndata: text\n")
        assert load(path).experiment.data.context == 128

    def test_a_list_is_replaced_whole(self, write: Write) -> None:
        write("specs/base.yaml", BASE + "metrics: [loss, cost]\n")
        path = write("specs/mine.yaml", "extends: base.yaml\nmetrics: [loss]\n")
        assert [metric.kind for metric in load(path).experiment.metrics] == ["loss"]

    def test_null_takes_back_one_budget_for_the_other(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        path = write("specs/mine.yaml", "extends: base.yaml\ntraining: {tokens: 1e6}\n")
        (problem,) = said(path)
        assert problem.startswith("specs/mine.yaml:2:12: give either `steps` or `tokens`, not both; `null` removes")
        path = write("specs/mine.yaml", "extends: base.yaml\ntraining: {tokens: 1e6, steps: null}\n")
        assert load(path).experiment.training.tokens == 1e6

    def test_paths_are_relative_to_the_file_that_names_them(self, write: Write, project: Path) -> None:
        (project / "specs" / "deep").mkdir()
        write("specs/base.yaml", BASE)
        write("specs/deep/middle.yaml", "extends: ../base.yaml\nname: middle\n")
        path = write("specs/mine.yaml", "extends: deep/middle.yaml\n")
        assert load(path).experiment.name == "middle"

    def test_mistakes_of_a_base_point_into_the_base(self, write: Write) -> None:
        write("specs/base.yaml", BASE.replace("seed: 1", "sede: 1").replace("0.05", "-1"))
        path = write("specs/mine.yaml", "extends: base.yaml\nname: my run\n")
        assert [problem.partition(": ")[0] for problem in said(path)] == [
            "specs/base.yaml:5:38",
            "specs/base.yaml:8:3",
            "specs/mine.yaml:2:7",
        ]

    def test_what_no_file_gives_is_missing_in_the_last_that_has_the_mapping(self, write: Write) -> None:
        write("specs/base.yaml", BASE + "  target: {metric: loss/held_out}\n")
        path = write("specs/mine.yaml", "extends: base.yaml\ntraining:\n  target: {}\n")
        (problem,) = said(path)
        assert problem.startswith("specs/mine.yaml:3:3: key `at_most` is missing in `training.target`")

    def test_a_circle_is_named(self, write: Write) -> None:
        write("specs/a.yaml", "extends: b.yaml\n")
        write("specs/b.yaml", "name: b\nextends: [a.yaml]\n")
        assert said(Path("specs/a.yaml")) == [
            "specs/b.yaml:2:11: a file cannot extend itself: `a.yaml` -> `b.yaml` -> `a.yaml`"
        ]
        assert said(write("specs/c.yaml", "extends: c.yaml\n")) == [
            "specs/c.yaml:1:10: a file cannot extend itself: `c.yaml` -> `c.yaml`"
        ]

    def test_many_files_that_share_bases_are_read_once_each(self, write: Write) -> None:
        write("specs/f0.yaml", BASE)
        for number in range(1, 9):
            below = f"f{number - 1}.yaml"
            write(f"specs/f{number}.yaml", f"extends: [{', '.join([below] * 9)}]\n")
        assert load(Path("specs/f8.yaml")).experiment.name == "base"

    def test_a_ladder_of_files_ends(self, write: Write) -> None:
        write("specs/f0.yaml", BASE)
        for number in range(1, 12):
            write(f"specs/f{number}.yaml", f"extends: f{number - 1}.yaml\n")
        (problem,) = said(Path("specs/f11.yaml"))
        assert problem.startswith("specs/f3.yaml:1:10: a spec may extend at most 8 levels")

    @pytest.mark.parametrize(
        ("named", "complaint"),
        [
            ("bse.yaml", "no such file: `specs/bse.yaml`; did you mean `specs/base.yaml`?"),
            ("../../outside.yaml", "`../../outside.yaml` is outside the project, "),
            ("/etc/passwd", "`/etc/passwd` is outside the project, "),
            ("link.yaml", "`link.yaml` is outside the project, "),
            ("3", "expected the path of a spec, or a list of paths"),
            ("''", "expected the path of a spec, or a list of paths"),
            ("{a: 1}", "expected the path of a spec, or a list of paths"),
            ('"a\\0b"', "`a\N{REPLACEMENT CHARACTER}b` is not a path"),
            (".", "no such file: `specs`"),
        ],
    )
    def test_a_base_that_cannot_be_is_pointed_at(
        self, named: str, complaint: str, write: Write, project: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
        outside.write_text(BASE)
        (project / "specs" / "link.yaml").symlink_to(outside)
        write("specs/base.yaml", BASE)
        path = write("specs/mine.yaml", f"name: mine\nextends: [{named}]\n")
        (problem,) = said(path)
        assert problem.startswith(f"specs/mine.yaml:2:11: {complaint}")

    def test_a_broken_base_does_not_make_its_keys_missing(self, write: Write) -> None:
        write("specs/base.yaml", BASE + "oops: [\n")
        path = write("specs/mine.yaml", "extends: base.yaml\nname: mine\noptimizer: {inner_steps: x}\nfoo: 1\n")
        assert [problem.partition(": ")[0] for problem in said(path)] == ["specs/base.yaml:9:7", "specs/mine.yaml:4:1"]


class TestSet:
    @pytest.fixture
    def spec(self, write: Write) -> Path:
        return write("specs/base.yaml", BASE)

    def test_a_value_is_yaml(self, spec: Path) -> None:
        loaded = load(
            spec,
            [
                "training.seed=3",
                "optimizer.inner.learning_rate=3e-4",
                "optimizer.inner.nesterov=false",
                "optimizer.search={kind: none}",
                "name=it's: #1".replace("it's: #1", "other"),
                "data.source={kind: files, paths: [a, 'b c']}",
            ],
        )
        experiment = loaded.experiment
        assert isinstance(experiment.optimizer, GaussNewton)
        assert experiment.training.seed == 3
        assert experiment.optimizer.inner == Muon(learning_rate=3e-4, nesterov=False, ns_steps=7)
        assert experiment.optimizer.search.kind == "none"
        assert experiment.data.source == Files(paths=("a", "b c"))
        assert origin(loaded, "training.seed") == "--set training.seed"
        assert origin(loaded, "training.steps") == "specs/base.yaml:7:10"
        assert origin(loaded, "data.source.paths.1") == "--set data.source"

    def test_the_last_of_two_wins(self, spec: Path) -> None:
        assert load(spec, ["training.seed=3", "training.seed=4"]).experiment.training.seed == 4

    def test_another_kind_takes_nothing_over(self, spec: Path) -> None:
        assert load(spec, ["optimizer.kind=adamw"]).experiment.optimizer == AdamW()
        assert load(spec, ["optimizer=adamw"]).experiment.optimizer == AdamW()
        assert load(spec, ["optimizer.inner=adamw"]).experiment.optimizer == GaussNewton(inner=AdamW())
        assert load(spec, ["optimizer={kind: adamw}", "optimizer.eps=1e-6"]).experiment.optimizer == AdamW(eps=1e-6)

    def test_a_key_inside_a_default_changes_that_key_alone(self, spec: Path) -> None:
        loaded = load(spec, ["optimizer.search.trials=3", "training.start.steps=9", "metrics.0.microbatches=2"])
        experiment = loaded.experiment
        assert isinstance(experiment.optimizer, GaussNewton)
        assert (experiment.optimizer.search.kind, experiment.training.start.kind) == ("geometric", "warmup")
        assert [metric.kind for metric in experiment.metrics] == ["loss", "cost", "update_norms"]
        assert experiment.metrics[0] == Loss(microbatches=2)
        assert origin(loaded, "optimizer.search.kind") == "default"
        assert origin(loaded, "optimizer.search.trials") == "--set optimizer.search.trials"
        assert origin(loaded, "metrics.1.kind") == "default"

    def test_a_shorthand_in_the_file_can_be_refined(self, spec: Path) -> None:
        experiment = load(spec, ["data.source.kind=tokens", "data.source.train=a.npy", "data.source.held_out=b.npy",
                                 "data.source.vocabulary=300"]).experiment  # fmt: skip
        assert experiment.data.source == Tokens(train=("a.npy",), held_out=("b.npy",), vocabulary=300)

    def test_null_and_a_whole_mapping_can_be_set(self, spec: Path) -> None:
        assert load(spec, ["training.target.at_most=3.5"]).experiment.training.target is not None
        sets = ["training.target={at_most: 3.5}", "training.target=null"]
        assert load(spec, sets).experiment.training.target is None
        target = load(spec, [*sets, "training.target.at_most=2"]).experiment.training.target
        assert target is not None
        assert target.at_most == 2

    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ("training.sede=3", "unknown key `sede` in `training`; did you mean `seed`?"),
            ("trainig.seed=3", "unknown key `trainig`; did you mean `training`?"),
            ("optimizer.inner.lr=3", "unknown key `lr` in `optimizer.inner` (muon); did you mean `learning_rate`?"),
            (
                "optimizer.kind=adam",
                "unknown kind `adam`; expected `adamw`, `muon`, `rmnp`, `soap`, `lion`, `normuon`, `kl_soap`, "
                "`soap_muon`, `sophia`, `kfac`, `newton_muon`, `fop_soap`, `ml_fop_soap` or `gauss_newton`; "
                "did you mean `adamw`?",
            ),
            ("training.seed=x", "expected a whole number of at least 0 and less than 4294967296, got the text `x`"),
            ("training.seed.x=3", "`training.seed` is a single value; it holds no `x`"),
            ("metrics.first=cost", "`metrics` is a list; name an item by its number, as in `metrics.0`"),
            ("metrics.3.kind=cost", "`metrics` has no item 3; its items are 0 to 2"),
            ("optimizer.inner.rules.0=x", "`optimizer.inner.rules` has no item 0; it is empty"),
            ("training.seed", "`--set` takes key=value, for example `--set training.seed=3`"),
            ("=3", "`--set` takes key=value, for example `--set training.seed=3`"),
            ("training..seed=3", "`--set` takes key=value, for example `--set training.seed=3`"),
            ("training.seed=", "a value is missing; write `null` to remove a value"),
            ("training.seed=[1", "a `[` that opens here is never closed"),
            ("training.seed=!x 1", "tags such as `!x` are not allowed in a spec"),
            ("training.seed=.nan", "expected a finite number, got `.nan`"),
            ("extends=other.yaml", "`extends` must be at the top of the file"),
        ],
    )
    def test_a_mistake_names_the_setting(self, setting: str, complaint: str, spec: Path) -> None:
        assert said(spec, [setting]) == [f"--set {setting.partition('=')[0]}: {complaint}"]

    def test_mistakes_of_settings_and_files_come_together(self, write: Write) -> None:
        path = write("specs/mine.yaml", BASE.replace("seed", "sede"))
        assert len(said(path, ["training.rows=x", "nope", "training.steps=0"])) == 4

    def test_the_excerpt_is_the_setting(self, spec: Path) -> None:
        with pytest.raises(SpecProblems) as raised:
            load(spec, ["optimizer={kind: adamw, eps: -1}"])
        assert str(raised.value) == (
            "--set optimizer: expected a number greater than 0, got `-1`\n"
            "--set | optimizer={kind: adamw, eps: -1}\n"
            "      |                              ^^\n\n"
            "1 problem"
        )


class TestFile:
    def test_a_link_that_leads_nowhere_says_so(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        Path("specs/gone.yaml").symlink_to("nothing.yaml")
        Path("specs/loop.yaml").symlink_to("loop.yaml")
        assert said(Path("specs/gone.yaml")) == [
            "specs/gone.yaml: this is a symbolic link to `nothing.yaml`, and there is no such file"
        ]
        assert said(Path("specs/loop.yaml")) == ["specs/loop.yaml: cannot be read: Too many levels of symbolic links"]

    def test_a_missing_file_suggests_its_neighbour(self, write: Write) -> None:
        write("specs/base.yaml", BASE)
        assert said(Path("specs/bas.yaml")) == ["specs/bas.yaml: no such file; did you mean `specs/base.yaml`?"]

    def test_a_directory_is_not_a_spec(self, project: Path) -> None:
        assert said(project / "specs") == ["specs: this is a directory; give the path of a spec in it"]

    def test_the_workspace_is_found_from_the_file_not_from_here(
        self, write: Write, project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = project / write("specs/base.yaml", BASE)
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        loaded = load(path)
        assert loaded.workspace.root == project
        assert origin(loaded, "name") == f"{path}:1:7"

    def test_every_value_has_an_origin(self, write: Write) -> None:
        loaded = load(write("specs/base.yaml", BASE))
        assert origin(loaded, "data.source") == origin(loaded, "data.source.kind") == "specs/base.yaml:2:16"
        assert origin(loaded, "model.layers") == "default"
        leaves = [path for path in loaded.origins if path[:1] == ("optimizer",)]
        assert ("optimizer", "inner", "others", "betas", 1) in leaves
        assert () in loaded.origins
