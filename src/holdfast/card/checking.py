"""`holdfast.check`: a card from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.card.card import Card
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Target, recognise
from holdfast.errors import ArgumentError


def check(
    target: object = None,
    *,
    checkpoints: Sequence[Path | str] = (),
    factory: Callable[[], Any] | None = None,
    model: str | None = None,
    probes: Sequence[str] = (),
    store: Path | str | None = None,
    fresh: bool = False,
    settings: CheckSettings | None = None,
) -> Card:
    """What will break when a model leaves the conditions it was made for: all probes that apply, on one card.

    The model is left as it was. Nothing of it is executed but its own forward and backward passes: weights are read as
    tensors, never as code. Prompts go to the given endpoint alone.

    Arguments:
        target: a transformers model, a `torch.nn.Module`, a policy, a list function, logged Q values; or a name, as the
            command line takes it. `None`: the language model and the policy that ship with the package.
        checkpoints: weights of a network that a function makes: one file, or several of one training run in order.
        factory: makes a fresh network of the target's kind, where the target is a network.
        model: name of the model, for an endpoint that serves several.
        probes: only these; all unless given.
        store: a folder for finished findings, from which the same check goes on after an interruption.
        fresh: whether to measure anew what is there.
        settings: budget, seed, device, and what of the user's may be used.

    Returns:
        The card, for `print(card)`, `card.to_html()` and `card.to_dict()`.

    Errors:
        ArgumentError: the target is nothing that can be checked, or a probe is unknown.
    """
    from holdfast.card.run import check_targets

    settings = settings or CheckSettings()
    targets = load_targets(target, settings, checkpoints=checkpoints, factory=factory, model=model, probes=probes)
    return check_targets(targets, settings, probes=probes, store=None if store is None else Path(store), fresh=fresh)


def load_targets(
    target: object,
    settings: CheckSettings,
    *,
    checkpoints: Sequence[Path | str] = (),
    factory: Callable[[], Any] | None = None,
    model: str | None = None,
    probes: Sequence[str] = (),
) -> list[Target]:
    """What to check, loaded within the budget. The arguments are those of `check`.

    Errors:
        ArgumentError: the target is nothing that can be checked, or takes longer to load; or a probe is unknown.
    """
    from holdfast.card import checks
    from holdfast.card.run import OutOfTime, within

    names = tuple(one.name for one in checks.CHECKS)
    for probe in probes:
        if probe not in names:
            raise ArgumentError("probes", f"some of {', '.join(names)}", probe)
    if target is None and (checkpoints or factory or model):
        raise ArgumentError("target", "given, with checkpoints, factory or model", "none")
    try:
        with within(settings.budget_s):
            if target is None:
                return [
                    replace(recognise(place, device=settings.device), name=name) for name, place in shipped().items()
                ]
            if isinstance(target, Target):
                return [target]
            return [recognise(target, checkpoints=checkpoints, factory=factory, model=model, device=settings.device)]
    except OutOfTime:
        raise ArgumentError("target", f"to load within {settings.budget_s:g} s", "one that takes longer") from None


def shipped() -> dict[str, object]:
    """The models that come with the package, by what to call them."""
    from holdfast.models.action.checkpoint import SHIPPED as POLICY
    from holdfast.models.language.generate import SHIPPED as LANGUAGE

    return {"shipped language model": LANGUAGE, "shipped policy": POLICY}
