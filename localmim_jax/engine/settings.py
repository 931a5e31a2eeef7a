"""The settings of a run besides its task: frozen dataclasses, validated when they are made.

`tasks/` builds them from the config, whose keys have the same names. Values are the recipes': a field has a
default only if there are recipes without its key.
"""

import dataclasses
import math

from localmim_jax.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _one_of(key: str, value: str, legal: tuple[str, ...]) -> None:
    _require(value in legal, f"{key} is {value!r}; it must be one of {', '.join(legal)}")


def _finite(key: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
    """Raises ConfigError for NaN, infinity and values outside [low, high], or outside (low, high] with `above`."""
    legal = math.isfinite(value) and (low < value if above else low <= value) and value <= high
    bound = ("above " if above else "at least ") + f"{low:g}" + (f" and at most {high:g}" if high < math.inf else "")
    _require(legal, f"{key} is {value}; it must be {bound}")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer.

    Attributes:
        name: "adamw" (decoupled weight decay, as torch's AdamW), "lars" (as MAE's linear probe) or "momentum" (SGD with
            L2 regularization, as torch's SGD).
        b1, b2, eps: Adam's decay rates and denominator offset.
        momentum: momentum coefficient of "lars" and "momentum".
        weight_decay: weight decay of the parameters that the task's rules select.
        layer_decay: learning-rate factor from each layer to the one below it; None for one rate everywhere.
        clip_norm: largest global gradient norm; None to leave gradients alone.
        ema_decay: decay per step of the parameters' exponential moving average; None keeps no average.
        max_bad_steps: number of skipped (non-finite) steps in a row that ends the run.
    """

    name: str
    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip_norm: float | None
    ema_decay: float | None
    max_bad_steps: int
    momentum: float = 0.9
    layer_decay: float | None = None

    def __post_init__(self):
        _one_of("optimizer.name", self.name, ("adamw", "lars", "momentum"))
        for key in ("b1", "b2", "momentum"):
            _require(0 <= getattr(self, key) < 1, f"optimizer.{key} is {getattr(self, key)}; it must be in [0, 1)")
        _finite("optimizer.eps", self.eps, 0, above=True)
        _finite("optimizer.weight_decay", self.weight_decay, 0)
        if self.layer_decay is not None:
            _finite("optimizer.layer_decay", self.layer_decay, 0, 1, above=True)
        if self.clip_norm is not None:
            _finite("optimizer.clip_norm", self.clip_norm, 0, above=True)
        if self.ema_decay is not None:
            _require(0 < self.ema_decay < 1, f"optimizer.ema_decay is {self.ema_decay}; it must be in (0, 1)")
        _finite("optimizer.max_bad_steps", self.max_bad_steps, 1)


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """The learning-rate schedule (formulas in `engine.schedule`).

    Attributes:
        kind: "cosine", "linear" (to zero, as segmentation's polynomial of power one) or "steps" (x0.1 at milestones).
        base_lr: rate for a batch of 256, scaled by batch / 256 (pre-training). Set exactly one of it and `peak_lr`.
        peak_lr: absolute rate at the end of the warm-up (everything downstream).
        min_lr: final rate of "cosine" and "linear".
        warmup_epochs, warmup_steps: length of the linear warm-up; the steps win if both are given.
        warmup_lr: rate at the start of the warm-up.
        milestone_epochs, milestones: epochs, or steps, at which "steps" multiplies the rate by 0.1; the steps win if
            both are given.
    """

    kind: str
    base_lr: float | None
    peak_lr: float | None
    min_lr: float
    warmup_epochs: float
    warmup_steps: int | None
    warmup_lr: float
    milestone_epochs: tuple[float, ...] = ()
    milestones: tuple[int, ...] = ()

    def __post_init__(self):
        for key in ("milestone_epochs", "milestones"):
            object.__setattr__(self, key, tuple(getattr(self, key) or ()))
        _one_of("schedule.kind", self.kind, ("cosine", "linear", "steps"))
        both = (self.base_lr is not None) + (self.peak_lr is not None)
        _require(
            both == 1,
            f"schedule has {'both' if both else 'neither'} base_lr {'and' if both else 'nor'} peak_lr; set exactly "
            "one: base_lr is scaled by batch_size / 256, peak_lr is absolute",
        )
        key = "base_lr" if self.peak_lr is None else "peak_lr"
        _finite(f"schedule.{key}", getattr(self, key), 0, above=True)
        for key in ("min_lr", "warmup_epochs", "warmup_lr"):
            _finite(f"schedule.{key}", getattr(self, key), 0)
        if self.warmup_steps is not None:
            _finite("schedule.warmup_steps", self.warmup_steps, 0)
        _require(
            (self.kind == "steps") == bool(self.milestones or self.milestone_epochs),
            f"schedule.milestones is {self.milestones}; schedule.kind={self.kind!r} "
            + ("needs at least one" if self.kind == "steps" else "has none"),
        )
        for key in ("milestones", "milestone_epochs"):
            values = getattr(self, key)
            _require(
                list(values) == sorted(set(values)) and all(value > 0 for value in values),
                f"schedule.{key} is {values}; they must be positive and increasing",
            )

    def peak(self, batch_size: int) -> float:
        """The learning rate at the end of the warm-up for this global batch size."""
        if self.base_lr is not None:
            return self.base_lr * batch_size / 256
        assert self.peak_lr is not None  # one of the two is, see above
        return self.peak_lr


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """The device mesh, `data` x `fsdp`. -1 for one of them takes the remaining devices."""

    data: int
    fsdp: int

    def __post_init__(self):
        for key in ("data", "fsdp"):
            size = getattr(self, key)
            _require(size == -1 or size > 0, f"mesh.{key} is {size}; it must be positive, or -1 for the rest")
        _require((self.data, self.fsdp) != (-1, -1), "mesh.data and mesh.fsdp are both -1; give one of them")


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are saved and which are kept. The last step of a run is always saved.

    Attributes:
        every_steps, every_epochs: interval between saves; the steps win if both are given, 0 and 0 save only the end.
        keep_last: number of newest checkpoints to keep.
        keep_every_steps: checkpoints at multiples of this step are never removed; 0 for none.
    """

    every_steps: int
    every_epochs: float
    keep_last: int
    keep_every_steps: int

    def __post_init__(self):
        for key in ("every_steps", "every_epochs", "keep_every_steps"):
            _finite(f"checkpoint.{key}", getattr(self, key), 0)
        _finite("checkpoint.keep_last", self.keep_last, 1)

    def interval(self, steps_per_epoch: float) -> int:
        """Steps between saves; 0 for none."""
        if self.every_steps or not self.every_epochs:
            return self.every_steps
        return max(1, round(self.every_epochs * steps_per_epoch))


@dataclasses.dataclass(frozen=True)
class LogSettings:
    """Logging and profiling.

    Attributes:
        every_steps: steps between reports.
        profile_at: step at which a profile of five steps starts; 0 for never.
        notes: free text recorded with the run.
    """

    every_steps: int
    profile_at: int
    notes: str

    def __post_init__(self):
        _finite("log.every_steps", self.every_steps, 1)
        _finite("log.profile_at", self.profile_at, 0)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """All settings of the engine besides the task.

    Attributes:
        seed: seed of the initialization and of each step's random key, in [0, 2**31).
        accum_steps: number of micro-batches in a step.
        dtype: compute dtype of the model. "float16" uses dynamic loss scaling.
    """

    schedule: ScheduleSettings
    optimizer: OptimizerSettings
    mesh: MeshSettings
    checkpoint: CheckpointSettings
    log: LogSettings
    seed: int
    accum_steps: int
    dtype: str

    def __post_init__(self):
        _require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must be in [0, 2**31)")
        _finite("accum_steps", self.accum_steps, 1)
        _one_of("model.dtype", self.dtype, ("float32", "bfloat16", "float16"))

    def check_batch(self, batch_size: int, num_devices: int) -> None:
        """Raises ConfigError unless every micro-batch divides evenly over the devices. Names legal values."""
        _finite("batch_size", batch_size, 1)
        _require(
            batch_size % self.accum_steps == 0,
            f"accum_steps={self.accum_steps} does not divide batch_size={batch_size}; legal values: "
            f"{_divisors(batch_size)}",
        )
        micro = batch_size // self.accum_steps
        what = f"batch_size={batch_size}" + (f" in accum_steps={self.accum_steps}" if self.accum_steps > 1 else "")
        _require(
            micro % num_devices == 0,
            f"{what} gives micro-batches of {micro}, which {num_devices} devices cannot share evenly; use "
            f"{_divisors(micro)} devices or a batch_size divisible by {self.accum_steps * num_devices}",
        )


def _divisors(number: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return ", ".join(map(str, divisors[:12])) + (", ..." if len(divisors) > 12 else "")
