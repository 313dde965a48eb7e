"""What training a language model is made of. The command line takes it, a run keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from holdfast.errors import ArgumentError, count_of
from holdfast.models.training.recipe import OptimisationRecipe, Recipe, flag, schedule


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
    """Folder or hub id of a tokenizer of transformers; bytes are tokens unless given."""

    def __post_init__(self) -> None:
        if self.data and self.dataset is not None:
            raise ArgumentError("--data", "either this or --dataset", "both")
        if self.max_bytes is not None:
            count_of("--max-bytes", self.max_bytes, least=1)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The model: a tower of blocks with the mixers that a schedule names."""

    mixers: str = "rat,window"
    """Schedule of rat, attention, window, rnn, mlstm and slstm, from the first layer on: rat,window*3 is one rat and
    three window layers. It is repeated until there are --layers of them."""
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
        """The mixer of each layer."""
        return schedule(self.mixers, self.layers)


@dataclass(frozen=True, kw_only=True)
class LanguageOptimisationRecipe(OptimisationRecipe):
    """AdamW with betas 0.9 and 0.95, a linear warm-up and a cosine to zero."""

    compile: bool = False
    """Compile the model with torch.compile."""


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
class LanguageRecipe(Recipe):
    """All that decides what comes out of training a language model."""

    kind = "language"

    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    optimisation: LanguageOptimisationRecipe = field(default_factory=LanguageOptimisationRecipe)
    intervals: IntervalRecipe = field(default_factory=IntervalRecipe)
