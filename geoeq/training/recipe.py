"""What a recipe can say: one typed dataclass, with a smaller one for each section."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from geoeq.errors import RecipeError

__all__ = ["BATCH_LIMITS", "About", "LossSettings", "ModelSettings", "OptimizerSettings", "Recipe", "ScheduleSettings"]

#: The settings of which one says how large a batch is, and the size where none does.
BATCH_LIMITS = ("batch_size", "batch_atoms", "batch_edges")
_BATCH_SIZE = 32

#: Settings that decide nothing about the result.
_WATCHED = ("about", "run", "log", "workers", "doctor", "save_every")


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
    """The network, by the path of its class.

    Attributes:
        class_path: for example ``geoeq.models.EGNN``, or ``my_module.MyModel`` for a class of your own.
        init_args: the arguments of its constructor. Without "heads" each target gets its default head; a head that is
            written without a "name" is made once for each target.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossSettings:
    """What is minimised, on targets divided by their scale: the error of the best guess that needs no network.

    That error is in the norm of the loss: the root mean square for mse and huber, the mean for mae, the mean length
    for length.

    Attributes:
        name: mean squared error (mse), mean absolute error (mae), Huber's (huber: squared below 1 scale, absolute
            above), or the mean length of errors (length: of a vector, whatever way it turns; of a number, mae).
        weights: factors of the targets, 1 where none is given.
        per_atom: divide the errors of what grows with the number of atoms (energies) by that number.
        auxiliary: factors of the losses of the model's own (``Model.auxiliary_losses``), which are added in training,
            and in training alone: what is validated is the targets.
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
    """How the weights move.

    Attributes:
        name: adam (weight decay added to the gradient) or adamw (weight decay apart).
        lr: the highest learning rate of the schedule.
        weight_decay: pull of the weights towards zero.
        betas: memories of the mean and of the square of the gradient.
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
    """How the learning rate changes.

    Attributes:
        name: constant, cosine (to ``minimum`` times lr at the last step) or plateau.
        warmup_epochs: linear rise from 0, for each of the three; may be a fraction.
        minimum: the smallest factor of lr.
        patience: plateau: validations without a better loss before the rate falls.
        factor: plateau: the rate is multiplied by it.
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
    """A training run. Everything that decides its result is here.

    Attributes:
        dataset: name of a data set (perhaps with a variant, as in ``md22/dha``), or the path of a card of your own or
            of a file of structures.
        target: the field to learn, or several.
        model: the network.
        priors: what is known of the energy beforehand (``geoeq.models.WithPriors``), each by the path of its class, as
            in ``[{class_path: geoeq.models.ZBL}]``; null for nothing.
        forces: where forces (and stress) are targets: gradient, derivatives of the energy (``geoeq.models.Forces``
            around the network), or direct, outputs of a head, which conserve no energy.
        split: name of a split of the card; null for its first.
        sample: use only the records that ship with geoeq, offline.
        sample_epochs: epochs when ``sample`` is true; null for the same number.
        loss: what is minimised.
        optimizer: how the weights move.
        schedule: how the learning rate changes.
        epochs: passes over the training set.
        max_steps: stop after so many steps, whatever the epochs; null for no limit.
        budget: train for so many seconds (validation apart) in place of ``epochs``, and validate at most fifty times in
            place of ``validate_every``; the schedule ends with that time. null for none.
        batch_size: graphs in a batch of each device; 32 where none of these three is given.
        batch_atoms: in place of ``batch_size``, the largest number of atoms in a batch; null for none.
        batch_edges: in place of ``batch_size``, the largest number of edges in a batch; null for none.
        accumulate: batches of each device in a step.
        devices: GPUs of each machine, or processes on CPUs. A step has the batches of all devices, and its gradient is
            that of one batch that holds them all.
        num_nodes: machines.
        strategy: auto (ddp on several devices), ddp (each has all weights) or fsdp (weights are shared out).
        save_every: steps between the states, within an epoch, from which a killed run goes on; null: only its end.
        ema: decay of the exponential moving average of the weights, which is then evaluated and saved; null for none.
        gradient_clip: largest norm of the gradient; null for no limit.
        precision: "32", "64", or "bf16-mixed" (layers in bfloat16; geometry, weights and sums stay float32).
        early_stop: stop after so many validations without a better loss; null for never.
        validate_every: epochs between validations.
        seed: of the weights and of the order of the batches.
        deterministic: only algorithms that give the same bits each time, on a GPU too, where it costs speed.
        device: auto, cpu or cuda.
        threads: CPU threads; null for all.
        workers: processes that prepare batches; 0 for a thread of the training that makes the next one during a step.
        doctor: look through the data before training (``geoeq data doctor``, its quick form), and stop where it finds
            an error; false trains on them all the same.
        log: csv, tensorboard (csv as well), or auto (as tensorboard where that is installed).
        run: the folder of the run; null for runs/DATASET-RECIPE.
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
        given = self.batch_limit
        if not given:
            object.__setattr__(self, "batch_size", _BATCH_SIZE)
        if len(given) > 1:
            said = " and ".join(f"{name}: {size}" for name, size in given.items())
            raise RecipeError(f"{said} each say how large a batch is: leave out all but one, or set them to null.")
        if self.strategy == "fsdp":
            _require(self.budget is None, "budget", "null with strategy: fsdp", self.budget)
        _require(len(set(self.targets)) == len(self.targets) > 0, "target", "one or several names", self.target)

    @property
    def targets(self) -> list[str]:
        """The fields to learn, as a list."""
        return [self.target] if isinstance(self.target, str) else list(self.target)

    @property
    def batch_limit(self) -> dict[str, Any]:
        """The size of a batch, as a loader takes it."""
        sizes = {name: getattr(self, name) for name in BATCH_LIMITS}
        return {name: size for name, size in sizes.items() if size is not None}

    @property
    def total_epochs(self) -> int:
        """Epochs of this run, sample or not."""
        return self.sample_epochs if self.sample and self.sample_epochs is not None else self.epochs

    def folder(self, file: Path) -> Path:
        """The run folder of this recipe, which was read from ``file``."""
        name = f"{Path(self.dataset).stem}-{file.stem}"
        return Path(self.run) if self.run is not None else Path("runs") / name

    def to_dict(self) -> dict[str, Any]:
        """Everything, defaults included, as YAML and JSON can hold it."""
        values: dict[str, Any] = _plain(dataclasses.asdict(self))
        return values

    def decides(self) -> dict[str, Any]:
        """What the result depends on: all but where the run is kept, and how it is watched."""
        return {key: value for key, value in self.to_dict().items() if key not in _WATCHED}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
