"""The sections `training:`, `metrics:` and `compile:`: how a run is carried out and what it records."""

from typing import Annotated, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import Field, model_validator

from gnflow.spec.base import Count, Fraction, Kind, Path, Rate, Shorthand, Spec, Unit, find_kind, mark_later, refuse
from gnflow.spec.open import Open


class Scratch(Spec):
    """Start from the model's initial weights."""

    kind: Literal["scratch"] = "scratch"


class Warmup(Spec):
    """Start from weights that AdamW has pretrained briefly. Runs with the same model, data and seed share them."""

    kind: Literal["warmup"] = "warmup"
    steps: Annotated[Count, Unit("updates")] = 60
    """Number of AdamW updates. Each uses one micro-batch."""
    learning_rate: Rate = 1e-3
    """AdamW's learning rate after a linear warm-up over the first tenth of `steps`."""


class Checkpoint(Spec):
    """Start from the weights in a file `params.safetensors`, or in a directory of transformers for such a model."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: Path
    """The file `params.safetensors`, or the directory that contains it. The path is relative to the project root."""


class Pretrained(Spec):
    """Start from the pretrained weights in the directory of a model of kind `huggingface`."""

    kind: Literal["pretrained"] = "pretrained"


Start = Annotated[Scratch | Warmup | Checkpoint | Pretrained, Field(discriminator="kind"), Shorthand]


class Target(Spec):
    """Stop at the first evaluation that reaches this value."""

    metric: Literal["loss/held_out"] = "loss/held_out"
    """The metric that must reach the target."""
    at_most: float
    """Largest value of the metric that reaches the target."""


class Spike(Spec):
    """The losses that count as spikes: those far above the mean of the previous losses."""

    above: Rate = 6.0
    """A loss is a spike if it is more than this many standard deviations above the mean of the last `window` values of
    `loss/train`."""
    window: Annotated[int, Field(ge=2), Unit("steps")] = 128
    """Number of previous losses that are used. Losses of undone steps do not count. No loss is a spike until there are
    this many previous losses."""


class WeightEma(Spec):
    """An exponential moving average of the weights after each step, corrected for its bias towards the first."""

    kind: Literal["ema"] = "ema"
    decay: Fraction = 0.99
    """Weight of each step in the average, relative to the next step."""

    @property
    def looks_ahead(self) -> bool:
        """Return False: the average is the same however many steps follow."""
        return False


class WeightTail(Spec):
    """The mean of the weights after each of the last steps of the run."""

    kind: Literal["tail"] = "tail"
    part: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the steps that is averaged, counted from the last. At least the last step is included."""

    @property
    def looks_ahead(self) -> bool:
        """Return True: where the average begins depends on the length of the run."""
        return True


WeightAverage = WeightEma | WeightTail
Precision: TypeAlias = Literal["float32", "tf32", "bfloat16"]


class Training(Spec):
    """How long the run trains, on which device, and when it evaluates and saves."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all random draws. Each draw is a function of this seed, the step and the name of its stream."""
    rows: Annotated[Count, Unit("sequences")] = 32
    """Number of sequences in one micro-batch."""
    shares: Annotated[Count, mark_later(1), Unit("shares")] = 1
    """Number of shares in which the micro-batches of a mean are added: each share one after the other, then the shares
    in pairs. Up to so many devices compute the same bits (`gnflow run --devices`). 1 is a plain running sum."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on. `auto` means the GPU if there is one, or else the CPU."""
    precision: Precision = "float32"
    """Arithmetic of the passes through the model, those of Gauss-Newton included. With `bfloat16`, losses, line
    searches, sums over micro-batches, the optimizer and Newton's model (`objective: newton`) stay in float32."""
    steps: Annotated[Count | None, Unit("optimizer steps")] = None
    """Number of optimizer steps. Give either this or `tokens`."""
    tokens: Annotated[Rate | None, Unit("tokens")] = None
    """Number of training tokens, including those of a line search. It is rounded up to whole steps. Give either this
    or `steps`."""
    start: Start = Warmup()
    """The weights at the start of the run. Default: `pretrained` for a model of kind `huggingface` whose directory has
    weights, `warmup` for all others."""
    target: Target | None = None
    """Target value of a metric. The run stops at the first evaluation that reaches it. Default: the run trains to its
    end."""
    evaluate_every: Annotated[Count | None, Unit("optimizer steps")] = 1
    """Number of steps between evaluations on held-out data. `null` means the smallest number for which evaluations
    take at most a tenth of the work."""
    checkpoint_every: Annotated[Count, Unit("optimizer steps")] = 5
    """Number of steps between checkpoints that are kept."""
    temporary_checkpoint_minutes: Annotated[Rate, Unit("minutes")] = 5.0
    """Longest time between temporary checkpoints. Each one replaces the previous one."""
    on_nonfinite: Annotated[Literal["raise", "skip", "rollback"], mark_later("raise")] = "raise"
    """Reaction to a step whose loss, gradient or update is not finite, or whose loss is a `spike`: `raise` ends the
    run, `skip` leaves the step out, and `rollback` restores the weights of the last scheduled checkpoint. A run that
    continues does not use the batch of that step again."""
    spike: Annotated[Spike | None, mark_later(None)] = None
    """Apply `on_nonfinite` to sudden jumps of a finite loss as well. Default: it applies only to losses, gradients and
    updates that are not finite."""
    max_undone: Annotated[Count, Unit("steps"), mark_later(10)] = 10
    """Largest number of steps that `skip` or `rollback` may undo in one run. One more ends the run, as `raise`
    does."""

    average: Annotated[Annotated[WeightAverage, Field(discriminator="kind"), Shorthand] | None, mark_later(None)] = None
    """An average of the weights that is evaluated as `loss/held_out_average` and saved at the end. It does not
    influence training. Default: no average."""

    @model_validator(mode="after")
    def _require_one_budget(self) -> "Training":
        if (self.steps is None) == (self.tokens is None):
            both = ", not both; `null` removes the one that a base file gave" if self.steps else ""
            raise refuse(f"give either `steps` or `tokens`{both}", "tokens")
        return self


class Tuning(Spec):
    """The number of configurations that were tried before these values were chosen. A fair comparison depends on it."""

    trials: Annotated[int, Field(ge=0), Unit("runs")] = 0
    """Number of configurations that were tried, including this one. 0 means that the values were not tuned."""


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

    def estimate_work(self, blocks: int) -> Work:
        """Return the cost of one measurement on a model of so many blocks. Default: `microbatches` forward passes."""
        count = getattr(self, "microbatches", 0)
        return Work(count, count)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: object) -> None:
        """Set the default prefix for a kind that names no columns."""
        if not cls.columns and (kind := find_kind(cls)):
            cls.columns = (f"{kind}/",)


class Loss(MetricKind):
    """`loss/train` at every step and `loss/held_out` at every evaluation; images and text also have a loss per part.

    `loss/text` and `loss/image`, `loss/text_only`, `loss/understanding` and `loss/generation`, and `image_accuracy`.
    """

    factory = "gnflow.metrics.evaluation:build_loss"
    columns = ("loss/held_out", "loss/text", "loss/image", "loss/understanding", "loss/generation", "image_accuracy")
    kind: Literal["loss"] = "loss"
    microbatches: Annotated[Count, Unit("micro-batches")] = 16
    """Number of held-out micro-batches in one evaluation, counted from the first. If there are fewer, all are used."""


class Cost(MetricKind):
    """Tokens, serial passes, FLOPs and seconds since the start of the run."""

    factory = "gnflow.metrics.recorded:build_cost"
    columns = ("tokens/", "passes/", "flops/")
    kind: Literal["cost"] = "cost"


class UpdateNorms(MetricKind):
    """Global norms: `norm/update`, and `norm/gradient` for methods that have a single mean gradient."""

    factory = "gnflow.metrics.recorded:build_update_norms"
    columns = ("norm/",)
    kind: Literal["update_norms"] = "update_norms"


class Dominance(MetricKind):
    """Diagonal dominance of the momentum's Gram matrix: `dominance/r_min`, `r_avg`, `r_max` (arXiv:2603.20527)."""

    factory = "gnflow.metrics.dominance:build_dominance"
    of_momentum = True
    kind: Literal["dominance"] = "dominance"


class ModalityConflict(MetricKind):
    """`conflict/cosine` and `conflict/norm_ratio`, which compare the gradients of the text and the image loss."""

    factory = "gnflow.metrics.conflict:build_modality_conflict"
    not_of_text = "text has one modality"
    columns = ("conflict/",)
    kind: Literal["modality_conflict"] = "modality_conflict"
    microbatches: Annotated[Count, Unit("micro-batches")] = 4
    """Number of held-out micro-batches for each of the two mean gradients."""

    def estimate_work(self, blocks: int) -> Work:
        """Return the cost of two mean gradients."""
        return Work(2 * self.microbatches, 2 * self.microbatches * GRADIENT)


class Samples(MetricKind):
    """Sheets in `samples/`: images that the model draws for held-out captions, and captions that it writes for images.

    Data of digits also has `samples/recognised`, `samples/captioned` and `samples/classifier_accuracy`.
    """

    factory = "gnflow.metrics.sheets:build_samples"
    not_of_text = "a model of text draws no images"
    kind: Literal["samples"] = "samples"
    captions: Annotated[Count, Unit("images")] = 64
    """Number of held-out captions to draw images for, and of held-out images to write captions for."""
    guidance: Annotated[float, Field(ge=0)] = 3.0
    """Strength of classifier-free guidance. 1 means no guidance."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature of image codes. 0 means that the most likely code is taken."""
    every: Annotated[Count | None, Unit("evaluations")] = None
    """Number of evaluations between sheets. Default: one sheet at the end of the run."""


class Curvature(MetricKind):
    """Largest eigenvalues and trace of the Gauss-Newton matrix G and of the Hessian, on held-out micro-batches.

    It also measures how much of G lies in the blocks of its layers, the condition number of G after scaling by the
    optimizer's second moments if there are any, and the cosine between the last update and the Gauss-Newton step.
    """

    factory = "gnflow.metrics.curvature:build_curvature"
    kind: Literal["curvature"] = "curvature"
    every: Annotated[Count, Unit("evaluations")] = 10
    """Number of evaluations between measurements. The last evaluation of the run always has one."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Number of held-out micro-batches for the matrices, counted from the first."""
    eigenvalues: Count = 4
    """Number of largest eigenvalues to compute for each matrix."""
    iterations: Annotated[Count, Unit("curvature products")] = 32
    """Number of iterations of each Lanczos process, and of conjugate gradients for the Gauss-Newton step."""
    probes: Annotated[Count, Unit("random vectors")] = 8
    """Number of random vectors in two estimates: of each trace (three products for each vector), and of the share of G
    that lies in the blocks (one product for each vector and block)."""
    damping: Annotated[float, Field(ge=0)] = 0.1
    """Damping that is added to the diagonal of G when the Gauss-Newton step is computed."""

    def estimate_work(self, blocks: int) -> Work:
        """Return the cost of a gradient and of products with both matrices, which gnflow.metrics.curvature lists."""
        products = 6 * self.iterations + (6 + blocks) * self.probes
        count = self.microbatches
        return Work(count * (products + 1), count * (products * PRODUCT + GRADIENT), self.every)

    @model_validator(mode="after")
    def _require_enough_iterations(self) -> "Curvature":
        if self.eigenvalues > self.iterations:
            raise refuse(
                f"{self.eigenvalues} eigenvalues need at least as many iterations, not {self.iterations}", "iterations"
            )
        return self


Metric = Annotated[MetricKind, Open("metrics")]


class Compile(Spec):
    """How the functions of a run are compiled."""

    mode: Literal["off", "default", "max-autotune"] = "default"
    """Mode of `torch.compile`. `off` runs the same functions without compilation."""
    attention: Annotated[Literal["plain", "flash"] | None, mark_later(None)] = None
    """Attention kernel: `plain` stores a matrix of time x time, `flash` does not. Default: `plain` for Gauss-Newton
    with an exact tangent or with the search `decrement`, and `flash` otherwise."""
    activations: Annotated[Count | None, mark_later(None), Unit("MiB")] = None
    """Limit on the activation memory of one micro-batch, as predicted by the plan. If a micro-batch needs more, the
    backward pass recomputes the blocks of the model one at a time. If that needs more as well, the plan is refused.
    Default: no limit."""
    update: Annotated[Literal["stacks", "parts"], mark_later("stacks")] = "stacks"
    """Unit of an update: a stack of all matrices of one shape, or one matrix (`parts`). With `parts`, several devices
    share the work of the updates and the memory of the optimizer's state, and rounding errors may differ from those of
    `stacks`."""
    max_recompiles: Annotated[int, Field(ge=0)] = 0
    """Largest number of recompilations after the first step. The run stops if there are more."""
    max_graph_breaks: Annotated[int, Field(ge=0)] = 0
    """Largest number of graph breaks. The run stops if there are more."""
