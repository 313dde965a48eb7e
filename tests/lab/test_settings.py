from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast.cli import parsing, studies
from holdfast.cli.reproduce import command, command_of
from holdfast.errors import ArgumentError
from holdfast.lab.locate import find
from holdfast.lab.run import Job
from holdfast.lab.settings import apply, overrides
from holdfast.lab.store import Store

STUDY = """
from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.lab import Config, Study, Trial


class Optimiser(enum.Enum):
    SGD = "plain"
    ADAM = "adaptive"


class Mode(enum.StrEnum):
    FAST = "quick one"
    SLOW = "-slow"


@dataclass(frozen=True)
class Model:
    width: int = 8
    bias: bool = True
    drop_out: float = 0.1
    activation: Literal["gelu", "relu"] = "gelu"


@dataclass(frozen=True)
class Network:
    model: Model = field(default_factory=Model)
    use_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    learning_rate: float = 1e-3
    steps: int = 100
    name: str = "toy"
    verbose: bool = False
    optimiser: Optimiser = Optimiser.ADAM
    mode: Mode = Mode.FAST
    folder: Path = Path("data")
    lengths: tuple[int, ...] = (16, 64)
    rates: tuple[float, ...] = ()
    betas: tuple[float, float] = (0.9, 0.999)
    mixed: tuple[float, str] = (0.5, "adam")
    pairs: tuple[tuple[int, int], ...] = ((1, 2),)
    optimisers: tuple[Optimiser, ...] = (Optimiser.SGD,)
    limit: int | None = None
    cut: float | None = None
    cache: Path | None = None
    second: Optimiser | None = Optimiser.SGD
    tail: tuple[int, ...] | None = None
    network: Network = field(default_factory=Network)


def trials(config):
    return [Trial(seed, config) for seed in config.seed_range]


def run(trial):
    return {"x": 1.0}


study = Study("toy", "Does it?", {"quick": Settings(), "laptop": Settings(seeds=9, steps=7)}, trials, run, [])
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "toy with space.py"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def study(path: Path):
    return find(str(path))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """All settings, those of nested dataclasses under dotted names."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[f"{prefix}{item.name}"] = value
    return flat


whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False)
printable = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")))


@st.composite
def changed(draw, config):
    """A configuration like this one, with settings of its types."""
    optimiser, mode = type(config.optimiser), type(config.mode)
    model = dataclasses.replace(
        config.network.model,
        width=draw(whole),
        bias=draw(st.booleans()),
        drop_out=draw(real),
        activation=draw(st.sampled_from(["gelu", "relu"])),
    )
    return dataclasses.replace(
        config,
        seeds=draw(st.integers(1, 99)),
        first_seed=draw(whole),
        learning_rate=draw(real),
        steps=draw(whole),
        name=draw(printable),
        verbose=draw(st.booleans()),
        optimiser=draw(st.sampled_from(optimiser)),
        mode=draw(st.sampled_from(mode)),
        folder=Path(draw(st.sampled_from(["/tmp", "a b", ".", "x/y.txt"]))),
        lengths=tuple(draw(st.lists(whole, max_size=4))),
        rates=tuple(draw(st.lists(real, max_size=3))),
        betas=(draw(real), draw(real)),
        mixed=(draw(real), draw(st.sampled_from(["adam", "7", "nan"]))),
        pairs=tuple(draw(st.lists(st.tuples(whole, whole), min_size=1, max_size=3))),
        optimisers=tuple(draw(st.lists(st.sampled_from(optimiser), max_size=3))),
        limit=draw(st.none() | whole),
        cut=draw(st.none() | real),
        cache=draw(st.none() | st.just(Path("/tmp/cache"))),
        second=draw(st.none() | st.sampled_from(optimiser)),
        tail=draw(st.none() | st.lists(whole, min_size=1, max_size=3).map(tuple)),
        network=dataclasses.replace(config.network, model=model, use_cache=draw(st.booleans())),
    )


def exact(config) -> str:
    """Equal only where values and types are equal: 1 and 1.0 differ, as they do in a trial's key."""
    return repr(sorted(flatten(config).items()))


relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def test_no_change_is_no_override(study):
    for config in study.scales.values():
        assert overrides(config, config) == {}
        assert apply(config, {}) is config
    assert overrides(study.scales["laptop"], study.scales["quick"]) == {"seeds": 9, "steps": 7}


@relaxed
@given(data=st.data())
def test_apply_is_the_inverse_of_overrides(study, data):
    base = data.draw(changed(study.scales["quick"]))
    config = data.draw(changed(base))
    changes = overrides(config, base)
    assert exact(apply(base, changes)) == exact(config)
    assert set(changes) == {name for name, value in flatten(config).items() if repr(flatten(base)[name]) != repr(value)}


@relaxed
@given(data=st.data())
def test_also_through_the_store(study, data, tmp_path):
    base = study.scales["quick"]
    config = data.draw(changed(base))
    store = Store(tmp_path)
    store.check_writable()
    store.remember("toy", "quick", overrides(config, base))
    assert exact(apply(base, store.runs()["toy"].overrides)) == exact(config)


def parsed(words: list[str]):
    """The configuration that the command line would run."""
    assert words[:2] == ["holdfast", "run"]
    options = parsing.parse(studies.run_options(words[2:]), "holdfast run", words[2:])
    (study,) = studies.find_studies(options.studies)
    return Job.of(study, options.scale, config=options.config, seeds=options.seeds).config


@relaxed
@given(data=st.data(), scale=st.sampled_from(["quick", "laptop"]))
def test_the_command_line_reproduces_the_configuration(study, path, data, scale):
    config = data.draw(changed(study.scales[scale]))
    line = command(str(path), scale, overrides(config, study.scales[scale]))
    assert exact(parsed(shlex.split(line))) == exact(config)


@pytest.mark.parametrize("value", ["-x", "--config.steps", "-1", "", "a 'b' \"c\" $HOME", "ü—λ", "None"])
def test_text_that_looks_like_something_else(study, path, value):
    config = dataclasses.replace(study.scales["quick"], name=value)
    line = command(str(path), "quick", overrides(config, study.scales["quick"]))
    assert parsed(shlex.split(line)) == config


def test_not_a_number_survives(study, path):
    base = study.scales["quick"]
    config = dataclasses.replace(base, learning_rate=math.nan, betas=(math.inf, -math.inf))
    changes = overrides(config, base)
    assert math.isnan(parsed(shlex.split(command(str(path), "quick", changes))).learning_rate)
    assert exact(apply(base, {"learning_rate": "nan", "betas": ["inf", "-inf"]})) == exact(config)


def test_the_command_is_what_a_person_would_write():
    changes = {"seeds": 3, "model.width": 16, "model.bias": False, "verbose": True, "lengths": (1, 2)}
    assert command("toy", "laptop", changes) == (
        "holdfast run toy --scale laptop --seeds 3 --config.model.width 16 --config.model.no-bias "
        "--config.verbose --config.lengths 1 2"
    )
    assert command("toy", "quick", {}) == "holdfast run toy --scale quick"


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Plain:
    rate: float = 0.5
    count: int = 2
    flag: bool = False
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    either: float | str = 0.5
    anything: Any = None
    grid: tuple[tuple[float, ...], ...] = ()
    weights: dict[str, int] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rate", 1, 1.0),
        ("rate", "inf", math.inf),
        ("count", 3, 3),
        ("flag", True, True),
        ("colour", 1, Colour.RED),
        ("colour", Colour.RED, Colour.RED),
        ("either", "x", "x"),
        ("either", 2, 2.0),
        ("grid", [[1, 2], []], ((1.0, 2.0), ())),
        ("anything", [1], [1]),
        ("weights", {"a": 1}, {"a": 1}),
        ("inner.depth", 4, 4),
    ],
)
def test_a_value_takes_the_type_of_its_setting(name, value, expected):
    found = flatten(apply(Plain(), {name: value}))[name]
    assert (found, type(found)) == (expected, type(expected))


def test_floats_in_nested_tuples_are_floats():
    found = apply(Plain(), {"grid": [[1]]}).grid[0][0]
    assert isinstance(found, float)


@given(st.dictionaries(st.sampled_from(["rate", "count", "flag"]), st.integers(0, 3) | st.booleans()))
@example({"rate": True})
def test_apply_never_changes_the_original(changes):
    base = Plain()
    with contextlib.suppress(ArgumentError):
        apply(base, changes)
    assert base == Plain()


@pytest.mark.parametrize("name", ["width", "inner.width", "rate.depth", "inner.depth.x", "", "inner."])
def test_an_unknown_setting_is_named(name):
    with pytest.raises(ArgumentError, match=rf"config\.{name}: expected a setting"):
        apply(Plain(), {name: 1})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("colour", 7, r"Colour, for example <Colour.RED: 1>, got 7"),
        ("rate", "fast", r"float, for example 0.5, got fast"),
        ("rate", "1.5", "float"),
        ("rate", True, "float"),
        ("count", 3.7, r"int, for example 2, got 3.7"),
        ("count", "3", "int"),
        ("count", True, "int"),
        ("flag", 1, "bool"),
        ("kind", "c", "Literal"),
        ("either", None, "float"),
        ("grid", [["x"]], "tuple"),
        ("grid", "12", "tuple"),
        ("weights", {"a": "many"}, "dict"),
        ("inner", {"deep": 1}, "Inner"),
    ],
)
def test_a_value_that_does_not_fit_is_named(name, value, expected):
    with pytest.raises(ArgumentError) as caught:
        apply(Plain(), {name: value})
    assert str(caught.value).startswith(f"config.{name}: expected ")
    assert re.search(expected, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_class_that_only_its_function_knows():
    @dataclass(frozen=True)
    class Local:
        rate: float = 0.1
        colour: Colour = Colour.RED
        other: UnknownHere | None = None
        sizes: tuple[int, ...] = (1,)

    changes = json.loads(json.dumps({"rate": 1, "colour": 1, "sizes": [2, 3]}))
    assert exact(apply(Local(), changes)) == exact(Local(rate=1.0, sizes=(2, 3)))


TYPED = """
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holdfast.lab import Config, Study, Trial


@dataclass(frozen=True)
class Warmup:
    steps: int = 10


@dataclass(frozen=True)
class Adam:
    lr: float = 0.1


@dataclass(frozen=True)
class PlainSGD:
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    warmup: Warmup = field(default_factory=Warmup)


@dataclass(frozen=True)
class Needy:
    lr: float
    warmup: Warmup


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    steps: tuple[int, ...] = (1, 2)
    optimizer: Adam | PlainSGD | Needy = field(default_factory=Adam)
    network: Warmup | None = None
    other: Warmup | None = field(default_factory=Warmup)


@dataclass(frozen=True, kw_only=True)
class Deep(Config):
    base: Adam = field(default_factory=Adam)
    layers: tuple[Adam | Warmup | PlainSGD, ...] = ()
    by_name: dict[str, Adam | PlainSGD] = field(default_factory=dict)
    loose: Any = None


@dataclass(frozen=True)
class Derived(Adam):
    more: int = 1


def trials(config):
    return [Trial(seed, config) for seed in config.seed_range]


def run(trial):
    return {"x": 1.0}


study = Study("toy", "Does it?", {"quick": Settings(), "laptop": Settings(seeds=9)}, trials, run, [])
"""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("typed") / "typed.py"
    path.write_text(TYPED, encoding="utf-8")
    study = find(str(path))
    return path, study, sys.modules[type(study.scales["quick"]).__module__]


def through_the_store(config, base, folder):
    """The configuration that a report judges."""
    store = Store(folder)
    store.check_writable()
    store.remember("toy", "quick", overrides(config, base))
    return apply(base, store.runs()["toy"].overrides)


def some_types(module) -> list[dict[str, Any]]:
    warmup = module.Warmup(3)
    return [
        {"optimizer": module.PlainSGD()},
        {"optimizer": module.PlainSGD(0.2, 0.9, True, warmup), "steps": (3, 4)},
        {"optimizer": module.Needy(1e-5, warmup)},
        {"optimizer": module.Adam(0.5), "seeds": 2},
        {"network": module.Warmup()},
        {"other": warmup},
        {"network": warmup, "optimizer": module.PlainSGD(warmup=warmup)},
        {"other": None},
        {"other": None, "network": warmup, "optimizer": module.Needy(0.1, warmup), "steps": ()},
    ]


@pytest.mark.parametrize("case", range(9))
def test_the_type_of_a_nested_setting_survives_the_store_and_the_command_line(typed, tmp_path, case):
    path, study, module = typed
    base = study.scales["quick"]
    config = dataclasses.replace(base, **some_types(module)[case])
    assert overrides(config, base)
    assert repr(through_the_store(config, base, tmp_path)) == repr(config)
    line = command_of(Job(study, "quick", config), str(path), ["--only", "main"])
    assert repr(parsed(shlex.split(line))) == repr(config), line


def test_types_within_lists_and_of_subclasses_survive_the_store(typed, tmp_path):
    _, _, module = typed
    layers = (module.PlainSGD(), module.Warmup(), module.Adam())
    config = module.Deep(base=module.Derived(0.3), layers=layers, by_name={"a": module.PlainSGD()})
    assert repr(through_the_store(config, module.Deep(), tmp_path)) == repr(config)


def test_a_type_that_no_annotation_tells_is_an_error_and_no_other_value(typed, tmp_path):
    _, _, module = typed
    with pytest.raises(ArgumentError, match=r"^config\.loose: expected an annotation"):
        through_the_store(module.Deep(loose=module.Adam()), dataclasses.replace(module.Deep()), tmp_path)
    with pytest.raises(ArgumentError, match=r"^config\.base: expected Adam"):
        apply(module.Deep(), {"base": {"type": "Gone", "settings": {}}})
