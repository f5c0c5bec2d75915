"""Turn a configuration of nanoGPT (github.com/karpathy/nanoGPT) into a spec. It is laid on the defaults of train.py."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from gnflow.spec.elsewhere import find_reason
from gnflow.spec.like.assignments import Value, read_assignments
from gnflow.spec.like.draft import Found, Given, Lack, shorten
from gnflow.spec.like.pretrained import NO_BIASES

DEFAULTS: Mapping[str, Value] = {
    "eval_interval": 2000, "eval_iters": 200, "init_from": "scratch", "wandb_log": False, "wandb_project": "owt",
    "dataset": "openwebtext", "gradient_accumulation_steps": 40, "batch_size": 12, "block_size": 1024, "n_layer": 12,
    "n_head": 12, "n_embd": 768, "dropout": 0.0, "bias": False, "learning_rate": 6e-4, "max_iters": 600000,
    "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "grad_clip": 1.0, "decay_lr": True, "warmup_iters": 2000,
    "lr_decay_iters": 600000, "min_lr": 6e-5, "dtype": "bfloat16", "compile": True,
}  # fmt: skip
READ = {*DEFAULTS, "device", "wandb_run_name"}
COPIED = {
    "model.layers": "n_layer",
    "model.width": "n_embd",
    "model.heads": "n_head",
    "data.context": "block_size",
    "optimizer.learning_rate": "learning_rate",
    "optimizer.weight_decay": "weight_decay",
    "optimizer.microbatches": "gradient_accumulation_steps",
    "training.rows": "batch_size",
    "training.steps": "max_iters",
    "training.evaluate_every": "eval_interval",
    "training.checkpoint_every": "eval_interval",
}
FIXED: Mapping[str, Value] = {  # nanoGPT's only architecture
    "model.kind": "decoder",
    "model.feedforward": "gelu",
    "model.qk_norm": "none",
    "model.tie_embeddings": True,
    "model.norm_epsilon": 1e-5,
}
CHARACTERS, BPE = 65, 50257
"""Sizes of the vocabularies of `shakespeare_char` and of GPT-2's tokenizer, which the other data sets use."""
ALWAYS = (
    Lack("learned positions", "a decoder here has rotary positions"),
    Lack("LayerNorm", "a decoder here has RMSNorm"),
    Lack("weight decay of matrices alone", "`optimizer.weight_decay` decays vectors too"),
)


def read_nanogpt(file: Path) -> Iterator[Found]:
    """Yield the values of the spec and what has no counterpart. Raises Unreadable."""
    own, computed = read_assignments(file)
    settings = {**DEFAULTS, **own}

    def tell(*names: str) -> str:
        return ", ".join(name if name in own else f"{name} of train.py" for name in names)

    for path, value in FIXED.items():
        yield Given(path, value)
    yield from _read_data(settings, tell("dataset"))
    yield Given("optimizer.kind", "adamw")
    for path, name in COPIED.items():
        yield Given(path, settings[name], tell(name))
    yield Given("optimizer.betas", [settings["beta1"], settings["beta2"]], tell("beta1", "beta2"))
    yield Given("optimizer.clip", settings["grad_clip"] or None, tell("grad_clip"))
    yield from _read_schedule(settings)
    precision = "float32" if settings["dtype"] == "float32" else "bfloat16"
    yield Given("training.precision", precision, tell("dtype"))
    if str(own.get("device", "")).partition(":")[0] in ("cpu", "cuda"):
        yield Given("training.device", str(own["device"]).partition(":")[0], "device")
    yield Given("training.start", "scratch")
    loss: dict[str, Value] = {"kind": "loss", "microbatches": settings["eval_iters"]}
    yield Given("metrics", [{**loss}, "cost", "update_norms"], tell("eval_iters"))
    if not settings["compile"]:
        yield Given("compile.mode", "off", "compile")
    if settings["wandb_log"]:
        yield Given("tracking.kind", "wandb", "wandb_log")
        yield Given("tracking.experiment", settings["wandb_project"], tell("wandb_project"))
    yield from _find_lacks(own, computed)


def choose_name(file: Path) -> str:
    """Return the name of the run that a configuration gives, or else the name of the file."""
    name = read_assignments(file).values.get("wandb_run_name")
    return name if isinstance(name, str) and name else file.stem


def _read_data(settings: Mapping[str, Value], origin: str) -> Iterator[Found]:
    name = str(settings["dataset"])
    folder = f"data/{name}"
    yield Given("data.source.kind", "tokens")
    yield Given("data.source.train", f"{folder}/train.npy", origin)
    yield Given("data.source.held_out", f"{folder}/val.npy")
    yield Given("data.source.vocabulary", CHARACTERS if name == "shakespeare_char" else BPE, "of prepare.py")
    yield Lack(
        f"{shorten(folder)}/train.bin, val.bin",
        "they have no header; convert each, as in "
        "numpy.save('train.npy', numpy.fromfile('train.bin', dtype='uint16')), and check `vocabulary`",
    )


def _read_schedule(settings: Mapping[str, Value]) -> Iterator[Found]:
    rate, least, steps = settings["learning_rate"], settings["min_lr"], settings["max_iters"]
    if not settings["decay_lr"]:
        yield Given("optimizer.schedule.kind", "constant", "decay_lr")
        return
    yield Given("optimizer.schedule.kind", "cosine", "decay_lr")
    yield Given("optimizer.schedule.warmup", settings["warmup_iters"], "warmup_iters")
    if isinstance(rate, int | float) and isinstance(least, int | float) and rate:
        yield Given("optimizer.schedule.final", float(f"{least / rate:.6g}"), "min_lr / learning_rate")
    if settings["lr_decay_iters"] != steps:
        yield Lack(f"lr_decay_iters = {settings['lr_decay_iters']}", f"a schedule here ends with the run, at {steps}")


def _find_lacks(own: Mapping[str, Value], computed: Mapping[str, str]) -> Iterator[Lack]:
    for name in ("dropout", "bias"):
        if own.get(name):
            yield Lack(f"{name} = {own[name]}", find_reason(name) or NO_BIASES)
    if own.get("init_from", "scratch") != "scratch":
        why = find_reason("resume") if own["init_from"] == "resume" else "weights of GPT-2 do not fit a decoder here"
        yield Lack(f"init_from = {shorten(repr(own['init_from']))}", why or "")
    if own.get("dtype") == "float16":
        yield Lack("dtype = 'float16'", "bfloat16 takes its place, without a scaler of gradients")
    for name, value in own.items():
        if name not in READ:
            why = find_reason(name) or "nothing in a spec has this meaning"
            yield Lack(f"{shorten(name)} = {shorten(repr(value))}", why)
    for name, expression in computed.items():
        if name != "wandb_run_name":
            what = "the default of train.py is used" if name in READ else "it is left out"
            yield Lack(f"{shorten(name)} = {shorten(expression)}", f"known only when the file runs; {what}")
    yield from ALWAYS
