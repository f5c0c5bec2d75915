"""The sections `training:`, `metrics:`, `compile:` and `tracking:`: how a run is carried out and what it records."""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from gnflow.spec.base import Count, Fraction, Kind, Path, Rate, Shorthand, Spec, Unit, kind_of, later, refuse
from gnflow.spec.open import Open


class Scratch(Spec):
    """Start from the model's initial weights."""

    kind: Literal["scratch"] = "scratch"


class Warmup(Spec):
    """Start from weights that AdamW has pretrained briefly, the same for all runs with this model, data and seed."""

    kind: Literal["warmup"] = "warmup"
    steps: Annotated[Count, Unit("updates")] = 60
    """Number of AdamW updates, each on one micro-batch."""
    learning_rate: Rate = 1e-3
    """AdamW's learning rate, reached by a linear warm-up over the first tenth of `steps`."""


class Checkpoint(Spec):
    """Start from the weights in a `params.safetensors`."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: Path
    """The file, or a directory that holds it, relative to the project root."""


Start = Annotated[Scratch | Warmup | Checkpoint, Field(discriminator="kind"), Shorthand]


class Target(Spec):
    """Stop at the first evaluation that reaches this value."""

    metric: Literal["loss/held_out"] = "loss/held_out"
    """The metric that must reach the value."""
    at_most: float
    """The value to reach."""


class Spike(Spec):
    """Which losses count as spikes: those far above the mean of the losses before them."""

    above: Rate = 6.0
    """A spike lies more than this many standard deviations above the mean of the last `window` values of
    `loss/train`."""
    window: Annotated[int, Field(ge=2), Unit("steps")] = 128
    """Number of last losses that are used; steps that were undone do not count. No loss is a spike before there are as
    many."""


class WeightEma(Spec):
    """An exponential moving average of the weights after each step, without its bias towards the first."""

    kind: Literal["ema"] = "ema"
    decay: Fraction = 0.99
    """Weight of the weights after a step against that of the weights after the next one."""

    @property
    def looks_ahead(self) -> bool:
        """Return False: the average is the same however many steps follow."""
        return False


class WeightTail(Spec):
    """The mean of the weights after each of the last steps of the run."""

    kind: Literal["tail"] = "tail"
    part: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The part of all steps that is averaged; at least the last one is."""

    @property
    def looks_ahead(self) -> bool:
        """Return True: where the average begins depends on the length of the run."""
        return True


WeightAverage = WeightEma | WeightTail


class Training(Spec):
    """How long the run trains, on which device, and when it evaluates and saves."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all random draws: each is a function of this seed, the step and the name of its stream."""
    rows: Annotated[Count, Unit("sequences")] = 32
    """Sequences in one micro-batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; `auto` uses the GPU if there is one."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of first-order passes. Gauss-Newton products stay in float32 or tf32."""
    steps: Annotated[Count | None, Unit("optimizer steps")] = None
    """Number of optimizer steps. Give either this or `tokens`."""
    tokens: Annotated[Rate | None, Unit("tokens")] = None
    """Number of training tokens, including those of a line search; rounded up to whole steps. Give either this or
    `steps`."""
    start: Start = Warmup()
    """The weights that the first step starts from."""
    target: Target | None = None
    """Value of a metric at which the run stops early. Default: the run trains to its end."""
    evaluate_every: Annotated[Count | None, Unit("optimizer steps")] = 1
    """Number of steps between evaluations on held-out data. `null` chooses the smallest number with which evaluations
    take at most a tenth of the work."""
    checkpoint_every: Annotated[Count, Unit("optimizer steps")] = 5
    """Number of steps between checkpoints that are kept."""
    temporary_checkpoint_minutes: Annotated[Rate, Unit("minutes")] = 5.0
    """Longest time between temporary checkpoints; each replaces the one before it."""
    on_nonfinite: Annotated[Literal["raise", "skip", "rollback"], later("raise")] = "raise"
    """What happens at a step with a loss, gradient or update that is not finite, or with a `spike`: `raise` ends the
    run, `skip` does not take the step, and `rollback` returns the weights to the last scheduled checkpoint. A run that
    goes on does not use the batch of that step again."""
    spike: Annotated[Spike | None, later(None)] = None
    """Also treat sudden jumps of a finite loss as `on_nonfinite` says. Default: only losses that are not finite."""
    max_undone: Annotated[Count, Unit("steps"), later(10)] = 10
    """Largest number of steps that `skip` or `rollback` may undo in one run; one more ends it as `raise` does."""

    average: Annotated[Annotated[WeightAverage, Field(discriminator="kind"), Shorthand] | None, later(None)] = None
    """An average of the weights, kept beside them and evaluated as `loss/held_out_average`. Training does not see it.
    Default: none."""

    @model_validator(mode="after")
    def _one_budget(self) -> "Training":
        if (self.steps is None) == (self.tokens is None):
            both = ", not both; `null` removes the one that a base file gave" if self.steps else ""
            raise refuse(f"give either `steps` or `tokens`{both}", "tokens")
        return self


class Tuning(Spec):
    """How many configurations were tried before these values were chosen. A fair comparison has to know this."""

    trials: Annotated[int, Field(ge=0), Unit("runs")] = 0
    """Number of configurations that were tried, including this one; 0 if the values were not tuned."""


GRADIENT, PRODUCT = 3, 5
"""Costs of a gradient and of a product with a curvature matrix, in forward passes."""


class Work(NamedTuple):
    """The cost of one measurement."""

    passes: int = 0
    """Number of passes over a micro-batch, of any kind."""
    forwards: int = 0
    """The cost of these passes, in forward passes."""
    every: int = 1
    """Number of evaluations from one measurement to the next."""


class MetricKind(Kind):
    """A metric. The object that its factory returns is measured at the evaluations of a run."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of its columns. Default: its kind and a slash.

    A column that begins like those of a kind is recorded only where the spec declares the kind.
    """
    not_of_text: ClassVar[str] = ""
    """Why this metric does not exist for text data; empty if it does."""
    of_momentum: ClassVar[bool] = False
    """Whether the metric measures the momentum of an optimizer."""

    def work(self, blocks: int) -> Work:
        """Return the cost of one measurement on a model of so many blocks. Default: `microbatches` forward passes."""
        count = getattr(self, "microbatches", 0)
        return Work(count, count)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: object) -> None:
        """Set the default prefix for a kind that names no columns."""
        if not cls.columns and (kind := kind_of(cls)):
            cls.columns = (f"{kind}/",)


class Loss(MetricKind):
    """`loss/train` at every step and `loss/held_out` at every evaluation; images and text also have a loss per part.

    `loss/text` and `loss/image`, `loss/text_only`, `loss/understanding` and `loss/generation`, and `image_accuracy`.
    """

    factory = "gnflow.metrics.evaluation:build_loss"
    columns = ("loss/held_out", "loss/text", "loss/image", "loss/understanding", "loss/generation", "image_accuracy")
    kind: Literal["loss"] = "loss"
    microbatches: Annotated[Count, Unit("micro-batches")] = 16
    """Number of held-out micro-batches in one evaluation: always the first ones, and at most all."""


class Cost(MetricKind):
    """Tokens, serial passes, FLOPs and seconds since the start of the run."""

    factory = "gnflow.metrics.recorded:build_cost"
    columns = ("tokens/", "passes/", "flops/")
    kind: Literal["cost"] = "cost"


class UpdateNorms(MetricKind):
    """Global norms: `norm/update`, and `norm/gradient` if the method has one mean gradient."""

    factory = "gnflow.metrics.recorded:build_update_norms"
    columns = ("norm/",)
    kind: Literal["update_norms"] = "update_norms"


class Dominance(MetricKind):
    """Diagonal dominance of the momentum's Gram matrix: `dominance/r_min`, `r_avg`, `r_max` (arXiv:2603.20527)."""

    factory = "gnflow.metrics.dominance:build_dominance"
    of_momentum = True
    kind: Literal["dominance"] = "dominance"


class ModalityConflict(MetricKind):
    """`conflict/cosine` and `conflict/norm_ratio` between the gradients of the text loss and of the image loss."""

    factory = "gnflow.metrics.conflict:build_modality_conflict"
    not_of_text = "text has one modality"
    columns = ("conflict/",)
    kind: Literal["modality_conflict"] = "modality_conflict"
    microbatches: Annotated[Count, Unit("micro-batches")] = 4
    """Number of held-out micro-batches that each of the two mean gradients is computed on."""

    def work(self, blocks: int) -> Work:
        """Return the cost of two mean gradients."""
        return Work(2 * self.microbatches, 2 * self.microbatches * GRADIENT)


class Samples(MetricKind):
    """Sheets in `samples/`: images that the model draws for held-out captions, and held-out images that it captions.

    Data of digits also has `samples/recognised`, `samples/captioned` and `samples/classifier_accuracy`.
    """

    factory = "gnflow.metrics.sheets:build_samples"
    not_of_text = "a model of text draws no images"
    kind: Literal["samples"] = "samples"
    captions: Annotated[Count, Unit("images")] = 64
    """Number of held-out captions to draw and of held-out images to caption."""
    guidance: Annotated[float, Field(ge=0)] = 3.0
    """Strength of classifier-free guidance; 1 is the model without guidance."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature of image codes; 0 takes the likeliest code."""
    every: Annotated[Count | None, Unit("evaluations")] = None
    """Number of evaluations from one sheet to the next. Default: one sheet at the end of the run."""


class Curvature(MetricKind):
    """Largest eigenvalues and trace of the Gauss-Newton matrix G and of the Hessian, on held-out micro-batches.

    It also measures how much of G lies in the blocks of its layers, the condition number of G after scaling by the
    optimizer's second moments if there are any, and the cosine between the last update and the Gauss-Newton step.
    """

    factory = "gnflow.metrics.curvature:build_curvature"
    kind: Literal["curvature"] = "curvature"
    every: Annotated[Count, Unit("evaluations")] = 10
    """Number of evaluations from one measurement to the next. The last evaluation of the run is always measured."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Number of held-out micro-batches that the matrices are computed on: always the first ones."""
    eigenvalues: Count = 4
    """Number of eigenvalues to measure of each matrix."""
    iterations: Annotated[Count, Unit("curvature products")] = 32
    """Number of iterations of each Lanczos process and of conjugate gradients for the Gauss-Newton step."""
    probes: Annotated[Count, Unit("random vectors")] = 8
    """Number of random vectors that estimate a trace (three products each) and the part of G in the blocks (one product
    for each block)."""
    damping: Annotated[float, Field(ge=0)] = 0.1
    """Damping that is added to the diagonal of G for the Gauss-Newton step."""

    def work(self, blocks: int) -> Work:
        """Return the cost of a gradient and of products with both matrices, which gnflow.metrics.curvature lists."""
        products = 6 * self.iterations + (6 + blocks) * self.probes
        count = self.microbatches
        return Work(count * (products + 1), count * (products * PRODUCT + GRADIENT), self.every)

    @model_validator(mode="after")
    def _enough_iterations(self) -> "Curvature":
        if self.eigenvalues > self.iterations:
            raise refuse(
                f"{self.eigenvalues} eigenvalues need at least as many iterations, not {self.iterations}", "iterations"
            )
        return self


Metric = Annotated[MetricKind, Open("metrics")]


class Compile(Spec):
    """How the functions of a run are compiled."""

    mode: Literal["off", "default", "max-autotune"] = "default"
    """Mode of `torch.compile`; `off` runs the same code eagerly."""
    attention: Annotated[Literal["plain", "flash"] | None, later(None)] = None
    """Attention kernel: `plain` stores the matrix of time x time, `flash` never does. Default: `plain` for Gauss-Newton
    with an exact tangent or with the search `decrement`, and `flash` otherwise."""
    activations: Annotated[Count | None, later(None), Unit("MiB")] = None
    """Limit on the activation memory of one micro-batch, as the plan counts it. If a micro-batch needs more, the
    backward pass recomputes the blocks of the model one at a time; if that still needs more, the plan is refused.
    Default: no limit."""
    max_recompiles: Annotated[int, Field(ge=0)] = 0
    """Largest number of recompilations after the first step; one more stops the run."""
    max_graph_breaks: Annotated[int, Field(ge=0)] = 0
    """Largest number of graph breaks; one more stops the run."""


class Mlflow(Spec):
    """Mirror the run to MLflow."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: Annotated[str, Field(min_length=1)] = "gnflow"
    """The MLflow experiment that the run belongs to."""
    study: Annotated[str | None, Field(min_length=1)] = None
    """The study that this run is part of. MLflow shows the runs of a study under one parent run."""


class NoTracking(Spec):
    """Keep the run directory only."""

    kind: Literal["none"] = "none"


Tracking = Annotated[Mlflow | NoTracking, Field(discriminator="kind"), Shorthand]
