"""`training:`, `metrics:`, `compile:` and `tracking:`: how a run is carried out and what it leaves."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from gnflow.spec.base import Count, Kind, Path, Rate, Shorthand, Spec, Unit, later, refuse
from gnflow.spec.open import Open


class Scratch(Spec):
    """Start from the model's initial weights."""

    kind: Literal["scratch"] = "scratch"


class Warmup(Spec):
    """Start from weights warmed by AdamW: the same for every arm with this model, data and seed; made once."""

    kind: Literal["warmup"] = "warmup"
    steps: Annotated[Count, Unit("updates")] = 60
    """AdamW updates of one micro-batch each."""
    learning_rate: Rate = 1e-3
    """AdamW's rate, after a linear warm-up over the first tenth of `steps`."""


class Checkpoint(Spec):
    """Start from the weights of a `params.safetensors`, named relative to the project root."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: Path
    """The file, or a directory that holds it."""


Start = Annotated[Scratch | Warmup | Checkpoint, Field(discriminator="kind"), Shorthand]


class Target(Spec):
    """Stop at the first evaluation that reaches this value."""

    metric: Literal["loss/held_out"] = "loss/held_out"
    """What is compared."""
    at_most: float
    """The value to reach."""


class Spike(Spec):
    """Which losses are spikes: those far above the ones before, in their standard deviations."""

    above: Rate = 6.0
    """Standard deviations that `loss/train` may lie above the mean of the last `window` of them."""
    window: Annotated[int, Field(ge=2), Unit("steps")] = 128
    """Losses of steps that were not undone; the rule holds once there are so many."""


class Training(Spec):
    """How long, on what, and what is kept."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Every random draw is a function of this, the step and the name of its stream."""
    rows: Annotated[Count, Unit("sequences")] = 32
    """Sequences in one micro-batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU when there is one."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of first-order passes; Gauss-Newton products stay in float32 or tf32."""
    steps: Annotated[Count | None, Unit("optimizer steps")] = None
    """Optimizer steps. Give this or `tokens`."""
    tokens: Annotated[Rate | None, Unit("tokens")] = None
    """Training tokens, search included; rounded up to whole steps."""
    start: Start = Warmup()
    """The weights that the first step starts from."""
    target: Target | None = None
    """Stop early once reached."""
    evaluate_every: Annotated[Count, Unit("optimizer steps")] = 1
    """Steps between evaluations on held-out text."""
    checkpoint_every: Annotated[Count, Unit("optimizer steps")] = 5
    """Steps between checkpoints that are kept."""
    temporary_checkpoint_minutes: Annotated[Rate, Unit("minutes")] = 5.0
    """A further checkpoint, replaced by the next one, at least this often."""
    on_nonfinite: Annotated[Literal["raise", "skip", "rollback"], later("raise")] = "raise"
    """A step with a loss, gradient or update that is not finite, or with a `spike`, ends the run (`raise`), is not
    taken (`skip`), or takes the weights back to the last scheduled checkpoint (`rollback`). Its batch is used up."""
    spike: Annotated[Spike | None, later(None)] = None
    """The losses that `on_nonfinite` is for though they are finite. Default: none."""
    max_undone: Annotated[Count, Unit("steps"), later(10)] = 10
    """Steps that `skip` or `rollback` may undo in one run; one more ends it as `raise` does."""

    @model_validator(mode="after")
    def _one_budget(self) -> "Training":
        if (self.steps is None) == (self.tokens is None):
            both = ", not both; `null` takes back one that a base file gave" if self.steps else ""
            raise refuse(f"give either `steps` or `tokens`{both}", "tokens")
        return self


class Tuning(Spec):
    """How much was tried before these values were settled on: what a fair comparison has to know."""

    trials: Annotated[int, Field(ge=0), Unit("runs")] = 0
    """Configurations tried, this one included; 0 when none was."""


class MetricKind(Kind):
    """A metric. What its factory returns is measured at the evaluations of a run."""

    columns: ClassVar[tuple[str, ...]] = ()
    """What the names of its columns begin with. Default: its kind and a slash.

    A column that begins like those of a kind is recorded only where the spec declares the kind.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **options: object) -> None:
        """Gives a kind that names no columns the default."""
        if not cls.columns and (kind := cls.model_fields.get("kind")):
            cls.columns = (f"{kind.default}/",)


class Loss(MetricKind):
    """`loss/train` at every step and `loss/held_out` at every evaluation; of images and text also by part.

    `loss/text` and `loss/image`, `loss/text_only`, `loss/understanding` and `loss/generation`, and `image_accuracy`.
    """

    factory = "gnflow.metrics.evaluation:loss"
    columns = ("loss/held_out", "loss/text", "loss/image", "loss/understanding", "loss/generation", "image_accuracy")
    kind: Literal["loss"] = "loss"
    microbatches: Annotated[Count, Unit("micro-batches")] = 16
    """Held-out micro-batches of one evaluation: always the first of the held-out text, at most all of it."""


class Cost(MetricKind):
    """Tokens, serial passes, FLOPs and seconds, all cumulative."""

    factory = "gnflow.metrics.recorded:cost"
    columns = ("tokens/", "passes/", "flops/")
    kind: Literal["cost"] = "cost"


class UpdateNorms(MetricKind):
    """Global norms: `norm/update`, and `norm/gradient` where the method has one mean gradient."""

    factory = "gnflow.metrics.recorded:update_norms"
    columns = ("norm/",)
    kind: Literal["update_norms"] = "update_norms"


class Dominance(MetricKind):
    """`dominance/r_min`, `r_avg`, `r_max` of the momentum's Gram matrix (arXiv:2603.20527); for muon and its like."""

    factory = "gnflow.metrics.dominance:dominance"
    kind: Literal["dominance"] = "dominance"


class ModalityConflict(MetricKind):
    """`conflict/cosine` and `conflict/norm_ratio` of the gradients of text and image loss, at every evaluation."""

    factory = "gnflow.metrics.conflict:modality_conflict"
    columns = ("conflict/",)
    kind: Literal["modality_conflict"] = "modality_conflict"
    microbatches: Annotated[Count, Unit("micro-batches")] = 4
    """Held-out micro-batches behind each of the two mean gradients."""


class Samples(MetricKind):
    """A sheet of images drawn for held-out captions beside the held-out images, and captions given to these.

    In `samples/`. Of digits also `samples/recognised`, `samples/captioned` and `samples/classifier_accuracy`.
    """

    factory = "gnflow.metrics.sheets:samples"
    kind: Literal["samples"] = "samples"
    captions: Annotated[Count, Unit("images")] = 64
    """Held-out captions drawn, and held-out images captioned."""
    guidance: Annotated[float, Field(ge=0)] = 3.0
    """How far logits go from those without the caption towards those with it; 1 is the model as it is."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Divides the logits of image codes; 0 takes the likeliest code."""
    every: Annotated[Count | None, Unit("evaluations")] = None
    """Evaluations from one sheet to the next. Default: one sheet, at the end of the run."""


class Curvature(MetricKind):
    """Largest eigenvalues and trace of the Gauss-Newton matrix G and of the Hessian, on held-out micro-batches.

    Of G also the part in its layers' blocks, its condition number seen through the optimizer's second moments where it
    keeps any, and the cosine between the last update and the Gauss-Newton step.
    """

    factory = "gnflow.metrics.curvature:curvature"
    kind: Literal["curvature"] = "curvature"
    every: Annotated[Count, Unit("evaluations")] = 10
    """Evaluations from one measurement to the next; the last evaluation of the run has one as well."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Held-out micro-batches that the loss is taken on: always the first."""
    eigenvalues: Count = 4
    """How many of each matrix."""
    iterations: Annotated[Count, Unit("curvature products")] = 32
    """Of each Lanczos process, and of conjugate gradients for the Gauss-Newton step."""
    probes: Annotated[Count, Unit("random vectors")] = 8
    """Behind a trace, three products each; behind the part in the blocks, one product for each block."""
    damping: Annotated[float, Field(ge=0)] = 0.1
    """Added to the diagonal of G for the Gauss-Newton step."""

    @model_validator(mode="after")
    def _enough_iterations(self) -> "Curvature":
        if self.eigenvalues > self.iterations:
            raise refuse(
                f"{self.eigenvalues} eigenvalues need at least as many iterations, not {self.iterations}", "iterations"
            )
        return self


Metric = Annotated[MetricKind, Open("metrics")]


class Compile(Spec):
    """How regions are compiled, and what is tolerated."""

    mode: Literal["off", "default", "max-autotune"] = "default"
    """`off` runs the same code eagerly."""
    attention: Annotated[Literal["plain", "flash"] | None, later(None)] = None
    """`flash` never has a matrix of time x time, `plain` writes it out. Default: `plain` for Gauss-Newton with an exact
    tangent or `decrement`, `flash` for the others."""
    activations: Annotated[Count | None, later(None), Unit("MiB")] = None
    """Most that the activations of a micro-batch may take, as the plan counts them. Above it the reverse pass takes the
    blocks of the model again, one at a time; where that is still too much, the plan is refused."""
    max_recompiles: Annotated[int, Field(ge=0)] = 0
    """Recompilations tolerated after the first step; one more stops the run."""
    max_graph_breaks: Annotated[int, Field(ge=0)] = 0
    """Graph breaks tolerated; one more stops the run."""


class Mlflow(Spec):
    """Mirror the run to MLflow."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: Annotated[str, Field(min_length=1)] = "gnflow"
    """The MLflow experiment."""
    study: Annotated[str | None, Field(min_length=1)] = None
    """The study that this run is part of: the runs of a study are nested under one parent run."""


class NoTracking(Spec):
    """The run directory only."""

    kind: Literal["none"] = "none"


Tracking = Annotated[Mlflow | NoTracking, Field(discriminator="kind"), Shorthand]
