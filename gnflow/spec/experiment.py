"""The spec of one experiment: everything that a spec file may contain."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from gnflow.spec.base import Expects, Listed, Spec, refuse
from gnflow.spec.data import PretrainedTokenizer, Text
from gnflow.spec.horizon import find_misfits
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.spec.model import Decoder, Model
from gnflow.spec.multimodal import Data, Multimodal
from gnflow.spec.optimizer import GaussNewton, Method, Optimizer
from gnflow.spec.tracking import Mlflow, Tracking
from gnflow.spec.training import Compile, Cost, Loss, Metric, Pretrained, Training, Tuning, UpdateNorms
from gnflow.spec.traits import find_what_joins, has_momentum


class Experiment(Spec):
    """One run: the model, its data, its optimizer and the length of its training."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$"),
        Expects("at most 100 letters, digits, `_`, `.` and `-`, a letter or digit first"),
    ]
    """Name of the run and of its directory under `runs/`."""
    model: Model = Decoder()
    """The model that is trained."""
    data: Data
    """The data that the model is trained and evaluated on."""
    optimizer: Optimizer
    """The optimizer of the run."""
    training: Training
    """Length of the run, batch size, device, starting weights and checkpoints."""
    metrics: Listed[Metric] = (Loss(), Cost(), UpdateNorms())
    """The metrics that are recorded."""
    compile: Compile = Compile()
    """How the functions of the run are compiled."""
    tracking: Tracking = Mlflow()
    """The tracker that shows the run: MLflow, TensorBoard, Weights & Biases, one of your own, or none."""
    tuning: Tuning = Tuning()
    """The number of configurations that were tried before this one. `gnflow compare` shows it beside each score."""

    @field_validator("data")
    @classmethod
    def _require_readable_data(cls, data: Data, info: ValidationInfo) -> Data:
        if (model := info.data.get("model")) is None:
            return data
        if isinstance(data, Text) and model.reads != "text":
            raise refuse(f"`model.kind` is `{model.kind}`, which needs data of kind `{model.reads}`", "kind")
        if isinstance(data, Multimodal) and data.style != model.kind:
            raise refuse(
                f"data of style `{data.style}` needs a model of that kind, but `model.kind` is `{model.kind}`", "style"
            )
        return data

    @field_validator("data")
    @classmethod
    def _fit_to_vocabulary(cls, data: Data, info: ValidationInfo) -> Data:
        """Take the tokenizer of a model of transformers, unless the data has its own."""
        model = info.data.get("model")
        if not isinstance(data, Text) or not isinstance(model, HuggingFaceModel):
            return data
        if data.tokenizer is None and not data.source.ready:
            if not model.vocabulary:
                raise refuse("config.json has no `vocab_size`, so give `data.tokenizer`", ("model", "path"))
            tokenizer = PretrainedTokenizer(path=model.path, vocabulary=model.vocabulary)
            return data.model_copy(update={"tokenizer": tokenizer})
        if 0 < model.vocabulary < data.vocabulary:
            raise refuse(
                f"the data has {data.vocabulary} token ids, and the model in `{model.path}` has {model.vocabulary}",
                "tokenizer",
                "source",
            )
        return data

    @field_validator("training")
    @classmethod
    def _choose_start(cls, training: Training, info: ValidationInfo) -> Training:
        """Start a model of transformers from the weights in its directory, unless the spec says otherwise."""
        model = info.data.get("model")
        if isinstance(model, HuggingFaceModel):
            chosen = "start" in training.model_fields_set or not model.has_weights
            return training if chosen else training.model_copy(update={"start": Pretrained()})
        if model is not None and isinstance(training.start, Pretrained):
            raise refuse(f"`model.kind` is `{model.kind}`, whose weights are not in a directory", "start")
        return training

    @field_validator("optimizer")
    @classmethod
    def _require_modalities(cls, optimizer: Optimizer, info: ValidationInfo) -> Optimizer:
        first_order = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
        by_modality = isinstance(first_order, Method) and first_order.by_modality
        if by_modality and isinstance(info.data.get("data"), Text):
            raise refuse("granularity `modality` needs multimodal data; text has one modality", "granularity")
        return optimizer

    @field_validator("training")
    @classmethod
    def _require_digits(cls, training: Training, info: ValidationInfo) -> Training:
        optimizer = info.data.get("optimizer")
        rough = isinstance(optimizer, GaussNewton) and optimizer.tangent == "difference"
        if rough and training.precision != "float32":
            raise refuse(
                f"`tangent: difference` needs more digits than `{training.precision}` has; set `float32`, or "
                "`optimizer.tangent: exact`",
                "precision",
            )
        return training

    @field_validator("training")
    @classmethod
    def _require_fitting_schedules(cls, training: Training, info: ValidationInfo) -> Training:
        optimizer = info.data.get("optimizer")
        if optimizer is None or training.steps is None:
            return training
        for path, why in find_misfits(optimizer, training.steps):
            raise refuse(why, ("optimizer", *path))
        return training

    @field_validator("compile")
    @classmethod
    def _require_derivatives(cls, compile: Compile, info: ValidationInfo) -> Compile:  # noqa: A002  # the section's name
        optimizer = info.data.get("optimizer")
        newton = isinstance(optimizer, GaussNewton) and optimizer.objective == "newton"
        if newton and compile.attention == "flash":
            raise refuse(
                "objective `newton` needs second derivatives, which `flash` does not have; use `plain`", "attention"
            )
        return compile

    @field_validator("compile")
    @classmethod
    def _require_parts(cls, compile: Compile, info: ValidationInfo) -> Compile:  # noqa: A002  # the section's name
        optimizer = info.data.get("optimizer")
        method = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
        if compile.update == "parts" and method is not None and (why := find_what_joins(method)):
            raise refuse(f"`parts` needs updates that can be made matrix by matrix, but {why}; use `stacks`", "update")
        return compile

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: tuple[Metric, ...], info: ValidationInfo) -> tuple[Metric, ...]:
        kinds = [metric.kind for metric in metrics]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                raise refuse(f"metric `{kind}` is declared twice", index)
        training = info.data.get("training")
        if training is not None and training.target is not None and "loss" not in kinds:
            raise refuse("`training.target` needs the metric `loss`; add it")
        if isinstance(info.data.get("data"), Text):
            for index, metric in enumerate(metrics):
                if metric.not_of_text:
                    raise refuse(f"metric `{metric.kind}` needs multimodal data; {metric.not_of_text}", index)
        optimizer = info.data.get("optimizer")
        for index, metric in enumerate(metrics):
            if metric.of_momentum and optimizer is not None and not has_momentum(optimizer):
                raise refuse(
                    f"metric `{metric.kind}` measures a momentum, but `{optimizer.kind}` has none here; "
                    "use `muon` or `rmnp` for some parameters at least, or remove the metric",
                    index,
                )
        return metrics
