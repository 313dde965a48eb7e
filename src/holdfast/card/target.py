"""What is checked: recognised from a name, or from an object of Python."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from holdfast.card.digest import digest_of, digest_of_files
from holdfast.errors import ArgumentError, HoldfastError
from holdfast.lab.locate import function_at

EXPECTED = (
    "a transformers model (a folder or an id), module:function or file.py:function, the file of a policy, "
    "a log of Q values (.csv or .npz), a folder of checkpoints, or the address of an endpoint"
)
ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""Names of models on the hub."""


class Kind(StrEnum):
    """Kinds of target."""

    MODEL = "transformers model"
    NETWORK = "network"
    POLICY = "policy"
    FUNCTION = "list function"
    ENDPOINT = "endpoint"
    RUN = "training run"
    VALUES = "log of Q values"


@dataclass(frozen=True)
class Target:
    """One thing to check.

    Arguments:
        kind: what it is.
        name: what to call it.
        subject: the thing itself: a model, a function, values; for an endpoint its address.
        identity: changes when the thing does: what is known of another is not taken for it.
        parts: what came with it: `factory`, its `code`, `checkpoints`, `observation` and others, by name.
    """

    kind: Kind
    name: str
    subject: Any
    identity: str
    parts: Mapping[str, Any] = field(default_factory=dict)


def recognise(
    target: object,
    *,
    checkpoints: Sequence[Path | str] = (),
    factory: Callable[[], Any] | None = None,
    model: str | None = None,
    device: str = "cpu",
) -> Target:
    """Find out what a target is, and load it.

    Arguments:
        target: a name, as the command line takes it, or the thing itself.
        checkpoints: weights of a network that a function makes: one file, or several of one training run in order.
        factory: makes a fresh network of the target's kind, where the target is a network.
        model: name of the model, for an endpoint that serves several.
        device: where to put a model.

    Errors:
        ArgumentError: it is nothing that can be checked, or does not load.
    """
    if not isinstance(target, str | Path):
        found = _of_object(target, factory, model)
    elif re.match(r"https?://", str(target)):
        found = _endpoint(str(target), model)
    elif ":" in str(target) and not Path(target).exists():
        found = _of_function(str(target))
    else:
        found = _of_path(str(target), device)
    if factory is not None and "factory" not in found.parts:
        if found.kind is not Kind.RUN or checkpoints:
            raise ArgumentError("factory", "a network or a run's checkpoints, which alone have one", f"a {found.kind}")
        found = _with_weights(_of_callable(factory, found.name), found.parts["checkpoints"])
    if checkpoints:
        found = _with_weights(found, [Path(path) for path in checkpoints])
    if model is not None and found.kind is not Kind.ENDPOINT:
        raise ArgumentError("model", "an endpoint, which alone has such an option", found.name)
    return found


def _of_object(target: object, factory: Callable[[], Any] | None, model: str | None) -> Target:
    from torch import nn

    name = getattr(target, "__name__", None) or type(target).__name__
    if isinstance(target, nn.Module):
        identity = digest_of(target.state_dict())
        if hasattr(target, "config") and hasattr(target, "save_pretrained"):
            return Target(Kind.MODEL, name, target, identity)
        if hasattr(target, "init_state") and hasattr(target, "config"):
            return Target(Kind.POLICY, name, target, identity)
        return Target(Kind.NETWORK, name, target, identity, {} if factory is None else {"factory": factory})
    if callable(target):
        return _of_callable(target, name)
    if hasattr(target, "q") and hasattr(target, "legal"):
        return Target(
            Kind.VALUES, name, target, hashlib.sha256(target.q.tobytes() + target.legal.tobytes()).hexdigest()
        )
    raise ArgumentError("target", EXPECTED, f"an object of {type(target).__name__}")


def _of_function(place: str) -> Target:
    function = function_at(place)
    source = place.rpartition(":")[0]
    path = source if source.endswith(".py") else getattr(sys.modules.get(source), "__file__", None)
    code = Path(path).read_bytes() if path and Path(path).is_file() else b""
    return _of_callable(function, place, hashlib.sha256(code + place.encode()).hexdigest())


def _of_callable(function: Callable[..., Any], name: str, identity: str = "") -> Target:
    """A list function takes one argument; what takes none makes a network, or a policy and an observation."""
    from torch import nn

    try:
        needed = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_KEYWORD,)
        ]
    except (TypeError, ValueError):  # a function written in C may not say
        return Target(Kind.FUNCTION, name, function, identity)
    if len(needed) == 1:
        return Target(Kind.FUNCTION, name, function, identity)
    if needed:
        expected = "a function of one list, or one without arguments that makes a network or a policy"
        raise ArgumentError("target", expected, f"{name}, which takes {len(needed)} arguments")
    made = _call(function, name)
    if isinstance(made, nn.Module):
        found = _of_object(made, function, None)
        code = {"code": identity or _code_of(function)}
        return Target(found.kind, name, made, identity + found.identity, {**found.parts, **code})
    if isinstance(made, tuple) and len(made) == 2:
        return Target(Kind.POLICY, name, made[0], identity, {"observation": made[1]})
    raise ArgumentError("target", "a function that makes a network, or a policy and an observation", _kind_of(made))


def _code_of(function: Callable[..., Any]) -> str:
    """The digest of the file in which a function stands; empty: it is no function of a file alone."""
    name = getattr(function, "__qualname__", "<")
    try:
        return "" if "<" in name else digest_of_files([Path(inspect.getfile(function))]) + name
    except (OSError, TypeError):
        return ""


def _kind_of(made: object) -> str:
    return f"one that makes {type(made).__name__}"


def _call(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except (HoldfastError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        shown = " ".join(str(error).split())[:200]
        raise ArgumentError("target", f"{name} to run", f"{type(error).__name__}: {shown}") from error


def _endpoint(address: str, model: str | None) -> Target:
    """An address, with the model's name behind `#` or given apart."""
    from holdfast.llm.address import Address

    base, _, named = address.partition("#")
    shown = Address.of(base).url
    name = f"{shown.removesuffix('/chat/completions')}{f'#{model or named}' if model or named else ''}"
    return Target(Kind.ENDPOINT, name, base, name, {"model": model or named or None})


def _of_path(place: str, device: str) -> Target:
    path = Path(place)
    if path.is_dir() and (path / "config.json").is_file():
        return _transformers(place, device)
    if path.is_dir() and (path / "modules.json").is_file():  # a sentence encoder keeps its model in a folder below
        inner = [one for one in sorted(path.iterdir()) if (one / "config.json").is_file() and "Pooling" not in one.name]
        if inner:
            return replace(_transformers(str(inner[0]), device), name=path.name)
    if path.is_dir():
        steps = checkpoints_in(path)
        if len(steps) < 2:
            raise ArgumentError("target", EXPECTED, f"{place}, a folder without config.json and without checkpoints")
        return Target(Kind.RUN, path.name or place, steps, digest_of_files(steps), {"checkpoints": tuple(steps)})
    if path.suffix.lower() in (".csv", ".npz") and path.is_file():
        return Target(Kind.VALUES, path.name, read_values(path), digest_of_files([path]))
    if path.is_file():
        return _file(path, device)
    is_file_name = path.suffix.lower() in (".csv", ".npz", ".pt", ".pth", ".bin", ".safetensors", ".json", ".py")
    if place.startswith((".", "/", "~")) or is_file_name or not ID.fullmatch(place):
        raise ArgumentError("target", EXPECTED, f"{place}, which is not there")
    return _transformers(place, device)


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints that a training left in a folder, in the order of their steps."""
    found = [path for path in folder.iterdir() if re.search(r"\d+(\.\w+)?$", path.name)]
    kept = [path for path in found if path.is_dir() or path.suffix in (".pt", ".pth", ".bin", ".safetensors")]
    return sorted(kept, key=lambda path: (int(re.findall(r"\d+", path.name)[-1]), path.name))


def read_values(path: Path) -> Any:
    """Logged Q values of a .csv file, or else of an .npz file."""
    from holdfast.probes.macros import read_csv, read_npz

    try:
        return (read_csv if path.suffix.lower() == ".csv" else read_npz)(path)
    except ArgumentError as error:
        argument = "target" if error.argument == "path" else error.argument
        raise ArgumentError(argument, error.expected, error.got) from error


def _file(path: Path, device: str) -> Target:
    """The file of a policy; weights alone are no model, and a file with code may have many functions."""
    from holdfast.models.action.checkpoint import load_model

    if path.suffix == ".py":
        raise ArgumentError("target", f"the name of a function in it, as {path.name}:name", path.name)
    try:
        model = load_model(path, device)
    except HoldfastError as error:
        expected = f"{EXPECTED}; weights alone need the function that makes their network, as the target"
        raise ArgumentError("target", expected, f"{path.name} ({error})") from error
    return Target(Kind.POLICY, path.name, model, digest_of_files([path]))


def _transformers(place: str, device: str) -> Target:
    from holdfast.card.transformers_model import load

    model, identity = load(place, device)
    return Target(Kind.MODEL, Path(place).name or place, model, identity, {"place": place})


def _with_weights(found: Target, paths: Sequence[Path]) -> Target:
    """A network with the weights of a checkpoint, or with several of a run."""
    from holdfast.probes.plasticity.files import load_weights

    if found.kind is not Kind.NETWORK:
        expected = "a function that makes a network, which alone has such an option"
        raise ArgumentError("checkpoint", expected, f"{found.name}, a {found.kind}")
    load_weights(found.subject, paths[-1], None)
    # A fresh network is another each time; with the weights of a file it is the same.
    identity = (found.parts.get("code") or found.identity) + digest_of_files(paths)
    parts = {**found.parts, "checkpoints": tuple(paths)}
    return Target(Kind.NETWORK if len(paths) == 1 else Kind.RUN, found.name, found.subject, identity, parts)
