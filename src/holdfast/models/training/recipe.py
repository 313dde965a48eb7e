"""What training recipes share: how it is optimised, schedules of mixers, and a recipe as JSON and as a command line."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from holdfast.errors import ArgumentError, count_of

R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True, kw_only=True)
class OptimisationRecipe:
    """AdamW with betas 0.9 and 0.95, a linear warm-up and a cosine to zero."""

    steps: int | None = None
    """Steps of the optimiser; unless given, 4000, or what --minutes gives."""
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
    """Where to run: cpu, cuda, or auto, which is cuda where there is one."""

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
class Recipe:
    """Base of recipes: dataclasses whose fields are dataclasses of options, each of another name."""

    kind: ClassVar[str]
    """What `holdfast train` calls it."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {part: {name: _plain(value) for name, value in vars(getattr(self, part)).items()} for part in vars(self)}

    @classmethod
    def from_dict(cls: type[R], document: dict[str, Any]) -> R:
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
        words = ["holdfast", "train", self.kind]
        for name, (value, _) in self.differences(type(self)()).items():
            if value is None:
                continue
            if isinstance(value, bool):
                words.append(name if value else f"--no-{name.removeprefix('--')}")
            else:
                words += [name, *map(str, value if isinstance(value, list) else [value])]
        return shlex.join(words)

    def with_steps(self: R, steps: int) -> R:
        """With the number of steps fixed."""
        optimisation: Any = vars(self)["optimisation"]
        changed: Any = {"optimisation": dataclasses.replace(optimisation, steps=steps, minutes=None)}
        return dataclasses.replace(self, **changed)


def schedule(mixers: str, layers: int) -> tuple[str, ...]:
    """The mixer of each layer.

    Arguments:
        mixers: names, some of them with a number of layers: rat,window*3 is one rat and three window layers.
        layers: how many there are: the schedule is repeated until then.

    Errors:
        ArgumentError: it cannot be read, or does not fit the number of layers.
    """
    names: list[str] = []
    for part in mixers.split(","):
        match = re.fullmatch(r"\s*([a-z]+)\s*(?:\*\s*(\d+)\s*)?", part)
        if match is None or match[2] == "0":
            raise ArgumentError("--mixers", "names with commas between, such as rat,window*3", mixers)
        names += [match[1]] * int(match[2] or 1)
    if layers % len(names):
        raise ArgumentError("--layers", f"a multiple of the {len(names)} in --mixers {mixers}", layers)
    return tuple(names * (layers // len(names)))


def flag(name: str) -> str:
    """The option on the command line that a field is set by."""
    return f"--{name.replace('_', '-')}"


def _plain(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, tuple) else value
