"""Models of transformers, made here from tiny configs: nothing is downloaded."""

import json
import re
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional

import gnflow
from gnflow import trees
from gnflow.commands.export import Refusal, export
from gnflow.commands.verify import verify
from gnflow.compiler.build import reduce_precision
from gnflow.compiler.methods import build_optimizer
from gnflow.compiler.program import compile as make_program
from gnflow.compiler.regions import Compiler
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.curvature.staged import build_objective
from gnflow.errors import DataError, EnvironmentProblem, GnflowError, SpecError
from gnflow.models.huggingface import export as exporting
from gnflow.models.huggingface.build import _build
from gnflow.models.huggingface.classes import silence
from gnflow.models.model import Model
from gnflow.objective import Params
from gnflow.optim.by_part import Ownership
from gnflow.optim.protocol import compile_regions, eager
from gnflow.spec.huggingface import format_config
from gnflow.spec.optimizer import Muon

transformers = pytest.importorskip("transformers", minversion="5")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

IDS, CONTEXT = 257, 12
SIZES = {
    "vocab_size": IDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 32,
    "bos_token_id": None, "eos_token_id": 256, "pad_token_id": None,
}  # fmt: skip
CONFIGS: dict[str, dict[str, object]] = {
    "llama": {**SIZES, "model_type": "llama"},
    "qwen3": {**SIZES, "model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True},
    "gpt2": {
        "model_type": "gpt2", "vocab_size": IDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
        "bos_token_id": 256, "eos_token_id": 256,
    },
    "gemma": {**SIZES, "model_type": "gemma", "head_dim": 8},
    "gemma2": {
        **SIZES, "model_type": "gemma2", "head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 4,
    },
    "olmo": {**SIZES, "model_type": "olmo", "clip_qkv": 0.5},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _work_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def build(name: str, kernel: str = "plain") -> Model:
    return _build(format_config(CONFIGS[name]), IDS, CONTEXT, kernel)  # type: ignore[arg-type]


def draw(network: Model, seed: int, dtype: torch.dtype = torch.float32) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {n: (w + 0.2 * torch.randn(w.shape, generator=generator)).to(dtype) for n, w in network.init(0).items()}


def make_reference(name: str, params: Params) -> torch.nn.Module:
    """The class of transformers itself, with its own attention and these weights."""
    with silence():
        config = transformers.CONFIG_MAPPING[CONFIGS[name]["model_type"]].from_dict(CONFIGS[name])
        cls = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model: torch.nn.Module = cls._from_config(config, attn_implementation="eager")
        model.to(next(iter(params.values())).dtype).load_state_dict(params, strict=False)
    assert {n for n, _ in model.named_parameters()} == params.keys()
    return model.eval()


def draw_tokens(seed: int = 0) -> Tensor:
    return torch.randint(IDS, (2, CONTEXT + 1), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CONFIGS)
def test_stages_have_the_logits_of_transformers(name: str) -> None:
    network = build(name)
    params, ids = draw(network, 1), draw_tokens()[:, 1:]
    reference = make_reference(name, params)
    with torch.no_grad():
        ours, theirs = network.compute_logits(params, ids), reference(ids, use_cache=False).logits
    assert torch.allclose(ours, theirs, atol=2e-5, rtol=0)
    assert ("head" not in network.blocks) == (name in ("qwen3", "gpt2", "gemma", "gemma2"))  # tied weights come once
    assert len({stage.function for stage in network.layers[1:]}) == (2 if name == "gemma2" else 1)
    assert all(len(network.weights[key].shape) == 2 and (".layers." in key or ".h." in key) for key in network.hidden)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_weights_are_drawn_as_transformers_draws_them(name: str) -> None:
    network, config = build(name), {**CONFIGS[name], "hidden_size": 256, "n_embd": 256, "intermediate_size": 256}
    large = _build(format_config(config), IDS, CONTEXT, "plain")
    with silence():
        made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config)
        model = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(made)]._from_config(made)
    for key, weight in model.named_parameters():
        law = large.weights[key]
        assert (weight == law.value).all() if law.std is None else abs(weight.std() / law.std - 1) < 0.05
    assert network.weights.keys() == large.weights.keys()


@pytest.mark.parametrize(("name", "kernel"), [("llama", "plain"), ("llama", "flash"), ("gpt2", "plain")])
def test_curved_is_that_of_plain_autograd(name: str, kernel: str) -> None:
    network = build(name, kernel)
    anchor, params = draw(network, 1, torch.float64), draw(network, 2, torch.float64)
    reference, tokens = make_reference(name, anchor), draw_tokens()

    def compute_logits(weights: Params) -> Tensor:
        logits: Tensor = torch.func.functional_call(reference, weights, (tokens[:, :-1],), {"use_cache": False}).logits
        return logits

    def measure(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    logits, moved = torch.func.jvp(compute_logits, (anchor,), (({n: params[n] - anchor[n] for n in anchor}),))
    slope, bent = torch.func.jvp(torch.func.grad(measure), (logits,), (moved,))
    (expected,) = torch.func.vjp(compute_logits, anchor)[1](slope + bent)
    found, _ = build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"]).curved(params, anchor, tokens)
    assert found.keys() == expected.keys()
    for key, want in expected.items():  # norms and rotary positions of transformers are in float32 in any case
        assert torch.allclose(found[key], want, atol=2e-6 * float(want.abs().max()) + 1e-9, rtol=1e-5), key


def test_the_compiled_loss_of_a_model_is_the_eager_one_for_all_weights() -> None:
    network = build("llama")
    objective = build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"])
    compiler = Compiler("default", True)
    compiled = compile_regions(objective, compiler)
    for seed in (1, 3):
        params, tokens = draw(network, seed), draw_tokens(seed)
        assert torch.allclose(compiled.value(params, tokens), objective.value(params, tokens), rtol=1e-4)
    assert set(compiler.count_graphs().values()) == {1}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_in_bfloat16_curved_is_the_same_within_rounding_and_can_be_planned(name: str) -> None:
    network, tokens = build(name), draw_tokens()
    lower = reduce_precision(network, torch.bfloat16)
    anchor = draw(network, 1)
    params = trees.move_towards(anchor, draw(network, 2), 0.1)
    exact, rough = (
        build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"], reduced=each) for each in (None, lower)
    )
    (expected, _), (found, _) = exact.curved(params, anchor, tokens), rough.curved(params, anchor, tokens)
    assert 0 < trees.norm(trees.subtract(found, expected)) < 0.03 * trees.norm(expected)
    nothing = {key: weight.to("meta") for key, weight in anchor.items()}
    gradient, _ = rough.curved(nothing, nothing, tokens.to("meta"))
    assert {weight.dtype for weight in gradient.values()} == {torch.float32}


@pytest.mark.faults
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_compiled_regions_are_those_of_the_eager_model(name: str) -> None:
    network = build(name)
    objective = build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"])
    compiler = Compiler("default", True)
    compiled = compile_regions(objective, compiler)
    for seed in (1, 3):  # a compiled module could keep the weights of the first call
        anchor, params, tokens = draw(network, seed), draw(network, seed + 1), draw_tokens(seed)
        expected, found = objective.curved(params, anchor, tokens), compiled.curved(params, anchor, tokens)
        assert torch.allclose(found[1], expected[1], rtol=1e-4)
        for key, want in expected[0].items():
            assert torch.allclose(found[0][key], want, atol=1e-4 * float(want.abs().max()) + 1e-7), key
    assert compiler.count_graphs() == {
        "embed.push_towards": 1, "apply_block.push_towards": 1, "apply_head.curved": 1
    }  # fmt: skip


def write_model(root: Path, name: str, weights: bool = False, **changed: object) -> Path:
    """A directory of transformers in a project, with random weights if they are wanted."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[name], **changed}))
    if weights:
        network = build(name)
        exporting.write_model(folder, format_config({**CONFIGS[name], **changed}), draw(network, 1))
    return folder


def write_spec(
    root: Path, model: dict[str, object], optimizer: str = "adamw", name: str = "tiny", **training: object
) -> Path:
    if not (root / "text.txt").exists():
        tiny.write_project(root)
    spec = {**tiny.tiny(optimizer, name, **training), "model": model}
    if "start" not in training:
        del spec["training"]["start"]  # type: ignore[attr-defined]
    spec["data"] = {**spec["data"], "context": CONTEXT}  # type: ignore[dict-item]
    file = root / f"{name}.yaml"
    file.write_text(json.dumps(spec))
    return file


def test_an_optimizer_sees_the_matrices_of_gpt2_as_those_of_other_models() -> None:
    network = build("gpt2")
    up, down = (f"transformer.h.0.mlp.{name}.weight" for name in ("c_fc", "c_proj"))
    assert (network.weights[up].shape, network.weights[down].shape) == ((16, 64), (64, 16))  # (in, out)
    assert network.transposed == network.hidden
    assert not build("llama").transposed
    method = Muon(learning_rate=1.0, scale="spectral", coefficients="convergent", ns_steps=12, momentum=0.0)
    params, tokens = draw(network, 1), draw_tokens()[None]
    objective = build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"])
    for ownership in (None, Ownership()):
        optimizer = build_optimizer(method, network, 1, eager, ownership=ownership)
        moved, _, _ = optimizer.step(objective, trees.clone(params), optimizer.init(params), tokens)
        for name, (m, n) in ((up, (64, 16)), (down, (16, 64))):
            length = torch.linalg.matrix_norm(moved[name] - params[name], 2)
            torch.testing.assert_close(length, torch.tensor((m / n) ** 0.5), atol=0.02, rtol=0)  # sqrt(out / in)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("optimizer", ["muon", "gauss_newton", "layerwise"])
def test_the_loss_falls(name: str, optimizer: str, tmp_path: Path) -> None:
    write_model(tmp_path, name)
    method = optimizer.replace("layerwise", "gauss_newton")
    experiment = gnflow.load(
        write_spec(tmp_path, {"kind": "huggingface", "path": name}, method, start="scratch"),
        ["optimizer.blocks=layer"] if optimizer == "layerwise" else [],
    )
    plan = gnflow.plan(experiment)
    program = make_program(plan)
    batches = gnflow.batches(plan)
    state = program.init()
    losses = []
    for batch, _ in zip(batches, range(6), strict=False):
        state, metrics = program.step(state, batch)
        losses.append(float(metrics["loss/train"]))
    assert losses[-1] < losses[0] - 0.05
    rules = {row.name: row.rule for row in plan.parameters}
    assert {rules[n] for n in program.network.hidden} == {"muon"}
    assert {rule for n, rule in rules.items() if n not in program.network.hidden} == {"others"}


def test_a_run_is_exported_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path, "qwen3", weights=True)
    experiment = gnflow.load(
        write_spec(tmp_path, {"kind": "huggingface", "path": "qwen3"}, average={"kind": "ema"}, start="pretrained")
    )
    run = gnflow.run(experiment)
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "TOLERANCE", 0.0)
        with pytest.raises(EnvironmentProblem, match="other logits"):
            export(run.directory, tmp_path / "out", average=False)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    export(run.directory, tmp_path / "out", average=False)
    export(run.directory, tmp_path / "averaged", average=True)
    with pytest.raises(Refusal, match="exists already"):
        export(run.directory, tmp_path / "out", average=False)
    ids = draw_tokens()[:, 1:]
    with silence(), torch.no_grad():
        models = [transformers.AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("out", "averaged")]
        logits = [model(ids).logits for model in models]
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert models[0].lm_head.weight is models[0].model.embed_tokens.weight
    assert float((logits[0] - logits[1]).abs().max()) > 0
    assert tokenizer("thé <|endoftext|>")["input_ids"] == [*"thé ".encode(), 256]
    assert tokenizer.decode([*"thé".encode()]) == "thé"

    further = gnflow.load(write_spec(tmp_path, {"kind": "huggingface", "path": "out"}, name="further", steps=1))
    assert gnflow.plan(further).to_json()["start"] == "out"
    began = gnflow.run(further).metrics["loss/held_out"].to_list()[0]
    assert began == pytest.approx(run.summary["loss/held_out"], abs=1e-5)
    again = gnflow.load(
        write_spec(
            tmp_path, {"kind": "huggingface", "path": "qwen3"}, name="again", steps=1,
            start={"kind": "checkpoint", "path": "out"},
        )
    )  # fmt: skip
    assert gnflow.run(again).metrics["loss/held_out"].to_list()[0] == pytest.approx(began, abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "cls"),
    [
        ({"feedforward": "swiglu", "key_value_heads": 1}, "LlamaForCausalLM"),
        ({"tie_embeddings": True}, "ArceeForCausalLM"),
    ],
)
def test_a_decoder_is_exported(changed: dict[str, object], cls: str, tmp_path: Path) -> None:
    model = {"kind": "decoder", "layers": 2, "width": 16, "heads": 2, "qk_norm": "none", **changed}
    run = gnflow.run(gnflow.load(write_spec(tmp_path, model, start="scratch", steps=2)))
    export(run.directory, tmp_path / "out", average=False)
    with silence():
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(loaded).__name__ == cls
    assert loaded.config.eos_token_id == 256


def test_a_decoder_without_a_class_is_refused(tmp_path: Path) -> None:
    run = gnflow.run(
        gnflow.load(
            write_spec(tmp_path, {"kind": "decoder", "layers": 1, "width": 16, "heads": 2}, start="scratch", steps=1)
        )
    )
    with pytest.raises(SpecError, match="qk_norm: none"):
        export(run.directory, tmp_path / "out", average=False)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_the_tokenizer_of_the_directory_is_the_default(tmp_path: Path) -> None:
    write_model(tmp_path, "llama")
    file = write_spec(tmp_path, {"kind": "huggingface", "path": "llama"})
    spec = json.loads(file.read_text())
    del spec["data"]["tokenizer"]
    file.write_text(json.dumps(spec))
    data = gnflow.load(file).data
    assert data.model_dump()["tokenizer"]["path"] == "llama"
    assert data.vocabulary == IDS


def test_derivatives_hold_on_a_small_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path, "llama")
    file = write_spec(tmp_path, {"kind": "huggingface", "path": "llama"}, "gauss_newton")
    assert verify([file], json=True) == 0, capsys.readouterr().out


def refuse(root: Path, name: str = "llama") -> GnflowError:
    """The error of a run whose model is this directory."""
    with pytest.raises(GnflowError) as refused:
        gnflow.run(gnflow.load(write_spec(root, {"kind": "huggingface", "path": name})))
    return refused.value


def test_every_fault_of_a_directory_is_one_clear_error(tmp_path: Path) -> None:
    write_spec(tmp_path, {"kind": "huggingface", "path": "llama"})
    assert re.search(r"tiny.yaml:\d+.*config.json does not exist", str(refuse(tmp_path)), flags=re.DOTALL)

    folder = write_model(tmp_path, "llama")
    config = folder / "config.json"
    for changed, words in (
        ({"vocab_size": 100}, "the data has 257 token ids, and the model in `llama` has 100"),
        ({"model_type": "strange", "auto_map": {"AutoConfig": "evil.Config"}}, "has no `model_type` `strange`"),
        ({"model_type": "t5"}, "is no causal language model"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification is no causal"),
        ({"model_type": "bert"}, "is no row of decoder layers"),
        ({"max_position_embeddings": 4}, "takes at most 4 tokens"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_attention_heads": "two"}, "config.json"),
    ):
        config.write_text(json.dumps({**CONFIGS["llama"], **changed}))
        assert words in str(refuse(tmp_path)), changed

    config.write_text(json.dumps({**CONFIGS["llama"], "auto_map": {"AutoConfig": "evil.Config"}}))
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match="pickled weights are not opened"):
        gnflow.run(gnflow.load(write_spec(tmp_path, {"kind": "huggingface", "path": "llama"}, start="pretrained")))

    from safetensors.torch import load_file, save_file

    exporting.write_model(folder, format_config(CONFIGS["llama"]), draw(build("llama"), 1))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    weights["model.norm.weight"] = torch.ones(8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    words = str(refuse(tmp_path))
    assert "model.layers.1.mlp.up_proj.weight: expected, found nothing" in words
    assert "model.norm.weight: expected (16,), found (8,)" in words
