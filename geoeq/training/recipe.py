"""The recipe schema: a typed dataclass, with a smaller one for each section."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from geoeq.errors import RecipeError

__all__ = [
    "BATCH_LIMITS",
    "IRRELEVANT",
    "About",
    "LossSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Recipe",
    "ScheduleSettings",
    "setting_hint",
]

#: Settings of which one limits the size of a batch, and the default size.
BATCH_LIMITS = ("batch_size", "batch_atoms", "batch_edges")
_BATCH_SIZE = 32

#: Settings that do not influence the result.
IRRELEVANT = ("about", "run", "log", "workers", "doctor", "save_every")


def _require(condition: bool, setting: str, rule: str, value: object) -> None:
    if not condition:
        raise RecipeError(f"'{setting}' must be {rule}, not {value}.")


@dataclass(frozen=True)
class About:
    """Notes for lists of recipes; they do not influence a run.

    Attributes:
        time: measured training time with its hardware, such as "3 min on 2 CPU cores"; empty if not measured.
    """

    time: str = ""


@dataclass(frozen=True)
class ModelSettings:
    """Class of the network with its arguments.

    Attributes:
        class_path: path of the class, such as ``geoeq.models.EGNN``, or ``my_module.MyModel`` for your own class.
        init_args: arguments of its constructor. Without "heads" each target gets its default head; a head without a
            "name" is created once for each target.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossSettings:
    """Loss function of targets that are divided by their scale, the error of the best baseline.

    That error is in the norm of the loss: root mean square for mse and huber, mean for mae, mean length for length.

    Attributes:
        name: mean squared error (mse), mean absolute error (mae), Huber loss (huber: squared below 1 scale, absolute
            above), or mean length of the error vectors (length: independent of the frame; for numbers the same as mae).
        weights: weights of the targets (default 1).
        per_atom: divide the errors of extensive targets (energies) by the number of atoms.
        auxiliary: weights of the model's own losses (``Model.auxiliary_losses``), which are added in training, not in
            validation.
    """

    name: Literal["mse", "mae", "huber", "length"] = "mse"
    weights: dict[str, float] = field(default_factory=dict)
    per_atom: bool = False
    auxiliary: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weight in self.auxiliary.items():
            _require(weight >= 0, f"auxiliary.{name}", "0 or more", weight)


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer.

    Attributes:
        name: adam (weight decay added to the gradient) or adamw (decoupled weight decay).
        lr: highest learning rate of the schedule.
        weight_decay: coefficient of the weight decay.
        betas: decay rates of the moving averages of the gradient and of its square.
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        _require(self.lr > 0, "lr", "above 0", self.lr)
        _require(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        _require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers from 0 to below 1", self.betas)


@dataclass(frozen=True)
class ScheduleSettings:
    """Learning-rate schedule.

    Attributes:
        name: constant, cosine (to ``minimum`` times lr at the last step) or plateau.
        warmup_epochs: number of epochs (may be a fraction) of a linear rise from 0, for each of the three.
        minimum: smallest factor of lr.
        patience: number of validations without a better loss before plateau reduces the learning rate.
        factor: factor of each reduction by plateau.
    """

    name: Literal["constant", "cosine", "plateau"] = "constant"
    warmup_epochs: float = 0.0
    minimum: float = 0.0
    patience: int = 10
    factor: float = 0.5

    def __post_init__(self) -> None:
        _require(self.warmup_epochs >= 0, "warmup_epochs", "0 or more", self.warmup_epochs)
        _require(0 <= self.minimum <= 1, "minimum", "from 0 to 1 (it multiplies lr)", self.minimum)
        _require(self.patience >= 1, "patience", "1 or more", self.patience)
        _require(0 < self.factor < 1, "factor", "between 0 and 1", self.factor)


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; they determine its result completely.

    Attributes:
        dataset: name of a data set (with a variant, as in ``md22/dha``), path of your own card, or path of a file of
            structures.
        target: field to learn, or a list of fields.
        model: network.
        priors: known contributions to the energy (``geoeq.models.WithPriors``), each by the path of its class, as in
            ``[{class_path: geoeq.models.ZBL}]``; null for none.
        forces: method for forces (and stress) as targets: gradient, derivatives of the energy (``geoeq.models.Forces``
            around the network), or direct, outputs of a head, which do not conserve energy.
        split: name of a split of the card; null for its default.
        sample: use only the records that ship with geoeq, offline.
        sample_epochs: number of epochs if ``sample`` is true; null for ``epochs``, which replaces it if overridden.
        loss: loss function.
        optimizer: optimizer.
        schedule: learning-rate schedule.
        epochs: number of passes over the training set.
        max_steps: largest number of optimizer steps, whatever the epochs; null for no limit.
        budget: training time in seconds (without validation) that replaces ``epochs``; the run is validated at most
            fifty times, whatever ``validate_every``, and the schedule ends with that time. null for none.
        batch_size: number of graphs in a batch of each device; 32 if none of these three is set.
        batch_atoms: largest number of atoms in a batch, instead of ``batch_size``; null for none.
        batch_edges: largest number of edges in a batch, instead of ``batch_size``; null for none.
        accumulate: number of batches of each device in a step.
        devices: number of GPUs per machine, or of processes on CPUs. A step has the batches of all devices, and its
            gradient is that of one batch with all of them.
        num_nodes: number of machines.
        strategy: auto (ddp on several devices), ddp (each device has all weights) or fsdp (weights are sharded).
        save_every: number of steps between saved states within an epoch, for resuming; null for epochs only.
        ema: decay of the exponential moving average of the weights, which is then evaluated and saved; null for none.
        gradient_clip: largest norm of the gradient; null for no limit.
        precision: "32", "64", or "bf16-mixed" (layers in bfloat16; geometry, weights and sums stay float32).
        early_stop: number of validations without a better loss after which training stops; null for never.
        validate_every: number of epochs between validations.
        seed: random seed of the weights and of the order of the batches.
        deterministic: use only algorithms that are reproducible bit for bit, on a GPU too, where they are slower.
        device: auto, cpu or cuda.
        threads: number of CPU threads; null for all.
        workers: number of processes that prepare batches; 0 for a thread that prepares the next batch during a step.
        doctor: check the data before training (quick form of ``geoeq data doctor``), and stop if there is an error;
            false trains anyway.
        log: csv, tensorboard (in addition to csv), or auto (tensorboard if it is installed).
        run: run folder; null for runs/DATASET-RECIPE.
        about: notes for lists of recipes.
    """

    dataset: str
    target: str | list[str]
    model: ModelSettings
    priors: list[ModelSettings] | None = None
    forces: Literal["gradient", "direct"] = "gradient"
    split: str | None = None
    sample: bool = False
    sample_epochs: int | None = None
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    epochs: int = 100
    max_steps: int | None = None
    budget: float | None = None
    batch_size: int | None = None
    batch_atoms: int | None = None
    batch_edges: int | None = None
    accumulate: int = 1
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    save_every: int | None = 1000
    ema: float | None = None
    gradient_clip: float | None = None
    precision: Literal["32", "64", "bf16-mixed"] = "32"
    early_stop: int | None = None
    validate_every: int = 1
    seed: int = 0
    deterministic: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    workers: int = 0
    doctor: bool = True
    log: Literal["csv", "tensorboard", "auto"] = "csv"
    run: str | None = None
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        for name in ("epochs", "validate_every", "accumulate", "devices", "num_nodes"):
            _require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        for name in ("sample_epochs", "max_steps", "early_stop", "threads", "save_every", *BATCH_LIMITS):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, "1 or more, or null", value)
        _require(self.budget is None or self.budget > 0, "budget", "seconds above 0, or null", self.budget)
        _require(self.workers >= 0, "workers", "0 or more", self.workers)
        _require(self.ema is None or 0 < self.ema < 1, "ema", "between 0 and 1, or null", self.ema)
        _require(self.gradient_clip is None or self.gradient_clip > 0, "gradient_clip", "above 0", self.gradient_clip)
        limits = self.batch_limit
        if not limits:
            object.__setattr__(self, "batch_size", _BATCH_SIZE)
        if len(limits) > 1:
            settings = " and ".join(f"{name}: {size}" for name, size in limits.items())
            raise RecipeError(f"{settings} exclude each other: leave out all but one, or set them to null.")
        if self.strategy == "fsdp":
            _require(self.budget is None, "budget", "null with strategy: fsdp", self.budget)
        _require(
            len(set(self.targets)) == len(self.targets) > 0, "target", "one or several different names", self.target
        )

    @property
    def targets(self) -> list[str]:
        """Fields to learn, as a list."""
        return [self.target] if isinstance(self.target, str) else list(self.target)

    @property
    def batch_limit(self) -> dict[str, Any]:
        """Limit of the batch size, as an argument of a loader."""
        sizes = {name: getattr(self, name) for name in BATCH_LIMITS}
        return {name: size for name, size in sizes.items() if size is not None}

    @property
    def total_epochs(self) -> int:
        """Number of epochs of this run, for the sample or all data."""
        return self.sample_epochs if self.sample and self.sample_epochs is not None else self.epochs

    def folder(self, file: str | Path) -> Path:
        """Return the run folder of this recipe, which was read from ``file``."""
        file = Path(file)
        name = f"{Path(self.dataset).stem}-{file.stem}"
        return Path(self.run) if self.run is not None else Path("runs") / name

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, including defaults, as YAML and JSON values."""
        values: dict[str, Any] = _plain(dataclasses.asdict(self))
        return values

    def decides(self) -> dict[str, Any]:
        """Return the settings that determine the result."""
        return {key: value for key, value in self.to_dict().items() if key not in IRRELEVANT}


def setting_hint(name: str, value: str = "") -> str:
    """Return a sentence that shows how to write a setting that the user meant by ``name``."""
    names = [entry.name for entry in dataclasses.fields(Recipe)]
    name = name.replace("-", "_")
    if name.partition(".")[0] in names:
        return f"Settings are written as key=value: {name}={value or 'VALUE'}."
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]}={value or 'VALUE'}? Settings are written as key=value."
    return "Write it as in optimizer.lr=1e-3."


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
