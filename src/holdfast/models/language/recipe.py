"""What a training run is made of: data, model, optimisation, intervals. The command line takes it, a run keeps it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from holdfast.errors import ArgumentError, count_of


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What is learnt from. Without --data and --dataset: the source of Python's standard library."""

    data: tuple[Path, ...] = ()
    """Text files, and folders of them; hidden and binary files in a folder are left out."""
    dataset: str | None = None
    """Dataset of the library `datasets`: a hub id, or a folder."""
    dataset_name: str | None = None
    """Configuration of the dataset, where it has several."""
    dataset_split: str = "train"
    """Split of the dataset; validation is its end, as with files."""
    dataset_column: str = "text"
    """Column of the dataset that holds the texts."""
    max_bytes: int | None = None
    """Read no more than so many bytes."""
    tokenizer: str | None = None
    """Folder or hub id of a tokenizer of transformers; by default bytes are tokens."""

    def __post_init__(self) -> None:
        if self.data and self.dataset is not None:
            raise ArgumentError("--data", "either this or --dataset", "both")
        if self.max_bytes is not None:
            count_of("--max-bytes", self.max_bytes, least=1)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The model: a tower of blocks with the mixers that a schedule names."""

    mixers: str = "rat,window"
    """Schedule of rat, attention, window, rnn and mlstm, from the first layer on: rat,window*3 is one rat and three
    window layers. It is repeated until there are --layers of them."""
    layers: int = 4
    """Number of layers, a multiple of the schedule's."""
    dim: int = 128
    """Width."""
    heads: int = 4
    """Heads of attention and RAT."""
    chunk_size: int = 16
    """Tokens a chunk of RAT."""
    window: int = 64
    """Tokens that a token sees in a window layer, itself included."""
    context: int = 256
    """Tokens that the model reads at once in training."""

    def __post_init__(self) -> None:
        for name in ("layers", "dim", "heads", "chunk_size", "window"):
            count_of(flag(name), getattr(self, name), least=1)
        count_of("--context", self.context, least=2)
        self.schedule()

    def schedule(self) -> tuple[str, ...]:
        """The mixer of each layer.

        Errors:
            ArgumentError: the schedule cannot be read, or does not fit the number of layers.
        """
        names: list[str] = []
        for part in self.mixers.split(","):
            match = re.fullmatch(r"\s*([a-z]+)\s*(?:\*\s*(\d+)\s*)?", part)
            if match is None or match[2] == "0":
                raise ArgumentError("--mixers", "names with commas between, such as rat,window*3", self.mixers)
            names += [match[1]] * int(match[2] or 1)
        if self.layers % len(names):
            raise ArgumentError("--layers", f"a multiple of the {len(names)} in --mixers {self.mixers}", self.layers)
        return tuple(names * (self.layers // len(names)))


@dataclass(frozen=True, kw_only=True)
class OptimisationRecipe:
    """AdamW with betas 0.9 and 0.95, a linear warm-up and a cosine to zero."""

    steps: int | None = None
    """Steps of the optimiser; by default 4000, or what --minutes gives."""
    minutes: float | None = None
    """Train for about so many minutes: how many steps that is, is measured once, before the first, and then fixed."""
    batch: int = 8
    """Windows a step, of all processes together."""
    accumulate: int = 1
    """Parts that a process computes its share of a batch in, to save memory."""
    lr: float = 2e-3
    """Largest learning rate."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.1
    """Of matrices; vectors have none."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    seed: int = 0
    """Of the first weights and of the order of the data."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What products are computed in; weights are float32. auto: bfloat16 on a GPU that has it, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    compile: bool = False
    """Compile the model with torch.compile."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise ArgumentError("--steps", "either this or --minutes", "both")
        for name in ("batch", "accumulate"):
            count_of(flag(name), getattr(self, name), least=1)
        if self.steps is not None:
            count_of("--steps", self.steps, least=1)
        for name in ("minutes", "lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ArgumentError(flag(name), "a positive number", value)
        if not 0 <= self.warmup <= 1:
            raise ArgumentError("--warmup", "a share between 0 and 1", self.warmup)
        if not 0 <= self.weight_decay < float("inf"):
            raise ArgumentError("--weight-decay", "a number that is not negative", self.weight_decay)
        count_of("--seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class IntervalRecipe:
    """How often what is done, in steps."""

    log_every: int = 10
    """Steps between two points of the training curve."""
    eval_every: int = 100
    """Steps between two looks at the validation data."""
    eval_windows: int = 64
    """Windows that such a look takes, spread evenly over the validation data; the last look takes all there are."""
    save_every: int = 100
    """Steps between two checkpoints; the last two are kept until the run is done."""
    report_to: tuple[str, ...] = ()
    """Trackers that transformers knows, such as tensorboard or wandb."""

    def __post_init__(self) -> None:
        for name in ("log_every", "eval_every", "eval_windows", "save_every"):
            count_of(flag(name), getattr(self, name), least=1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what comes out of a training run."""

    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    optimisation: OptimisationRecipe = field(default_factory=OptimisationRecipe)
    intervals: IntervalRecipe = field(default_factory=IntervalRecipe)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {part: {name: _plain(value) for name, value in vars(getattr(self, part)).items()} for part in vars(self)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Recipe:
        """Back from JSON.

        Errors:
            ArgumentError: it is no recipe, or one of another version.
        """
        from cattrs import Converter
        from cattrs.errors import BaseValidationError

        converter = Converter(forbid_extra_keys=True)
        try:
            return converter.structure(document, cls)
        except (BaseValidationError, TypeError, ValueError) as error:
            raise ArgumentError("--resume", "a run of this version of Holdfast", "one that it cannot read") from error

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """What differs, by flag: the value here and there."""
        there = other.to_dict()
        return {
            flag(name): (value, there[part][name])
            for part, values in self.to_dict().items()
            for name, value in values.items()
            if value != there[part][name]
        }

    @property
    def command(self) -> str:
        """The command line of this run, without the folder it writes to."""
        words = ["holdfast", "train", "language"]
        for name, (value, _) in self.differences(Recipe()).items():
            if value is None:
                continue
            if isinstance(value, bool):
                words.append(name if value else f"--no-{name.removeprefix('--')}")
            else:
                words += [name, *map(str, value if isinstance(value, list) else [value])]
        return shlex.join(words)

    def with_steps(self, steps: int) -> Recipe:
        """With the number of steps fixed."""
        return dataclasses.replace(self, optimisation=dataclasses.replace(self.optimisation, steps=steps, minutes=None))


def flag(name: str) -> str:
    """The option on the command line that a field is set by."""
    return f"--{name.replace('_', '-')}"


def _plain(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, tuple) else value
