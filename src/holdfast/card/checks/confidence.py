"""Whether a language model changes its mind as an ideal observer would."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.confidence import Responder
    from holdfast.probes.confidence import ConfidenceReport

NAME = "confidence"
QUESTION = "Does it cling to its first answer, or give way too easily?"
QUESTIONS = 50
CHANCE = 0.6
"""Share of right first answers, of two options, up to which a model counts as not knowing them."""
TRIED = 2
"""Attempts at a request, and so no more seconds are lost to a server that is not there."""


def unfit(target: Target, settings: CheckSettings) -> str:
    """Endpoints, and local language models that were made to answer."""
    if target.kind is Kind.ENDPOINT:
        return ""
    if target.kind is not Kind.MODEL:
        return "it answers no questions"
    from holdfast.card.transformers_model import is_causal

    if not is_causal(target.subject):
        return "it answers no questions"
    place = target.parts.get("place")
    if place is None or not _has_chat(str(place)):
        return "it has no chat template, so that it was not made to answer"
    return ""


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Ask questions of which it should know the answer, and again with its answer shown, hidden, or another's."""
    from holdfast.confidence import PILOT, TEMPLATES, Plan, latitude_questions
    from holdfast.probes.confidence import probe_confidence

    responder, form = _responder(target, settings, seconds)
    template = next(iter(TEMPLATES.values()))
    design = replace(PILOT, templates=(replace(template, form=form),))
    plan = Plan(tuple(latitude_questions(QUESTIONS, settings.seed)), design)
    # Nothing of what was asked is left behind: a finding holds numbers, and the store is a temporary one.
    with tempfile.TemporaryDirectory() as folder:
        report = probe_confidence(responder, plan, Path(folder) / "answers.jsonl", progress=False, seed=settings.seed)
    return _finding(report)


def _finding(report: ConfidenceReport) -> Finding:
    analysis = report.analysis
    known = analysis.calibration is None or analysis.calibration.accuracy > CHANCE
    outcome = Outcome.FAILS if analysis.flags else Outcome.HOLDS
    sentence = report.verdict
    if not known:
        outcome = Outcome.NOT_TOLD
        assert analysis.calibration is not None
        right = f"{analysis.calibration.accuracy:.0%} right, half by chance"
        sentence = (
            f"It cannot be told, for it knows too few answers ({right}): ask it questions of its own field with "
            "holdfast probe confidence --questions."
        )
    estimates = {"choice bias": analysis.choice_bias, "weight of contradiction": analysis.weight_opposite}
    meanings = {
        "choice bias": "log-odds that showing its own earlier answer adds; ideally 0",
        "weight of contradiction": "how much contradicting advice counts against its worth; ideally 1",
    }
    measures = tuple(
        Measure(name, meanings[name], one.value, (one.high - one.low) / 2 / 1.96)
        for name, one in estimates.items()
        if one.known and known
    )
    interval = f"{analysis.choice_bias.value:+.2f} [{analysis.choice_bias.low:+.2f}, {analysis.choice_bias.high:+.2f}]"
    return Finding(
        NAME,
        QUESTION,
        outcome,
        sentence,
        f"{analysis.questions} questions, {analysis.trials} trials; choice bias {interval} log-odds",
        _remedy() if outcome is Outcome.FAILS else None,
        measures,
        report.to_dict(),
        picture(report, NAME),
    )


def _responder(target: Target, settings: CheckSettings, seconds: float) -> tuple[Responder, Literal["chat", "flat"]]:
    if target.kind is Kind.MODEL:
        from holdfast.confidence.responders.huggingface import HuggingFaceResponder

        return HuggingFaceResponder.load(str(target.parts["place"]), device=settings.device), "chat"
    from holdfast.confidence import ChatResponder
    from holdfast.llm import Endpoint

    endpoint = Endpoint(
        model=target.parts["model"] or "default",
        base_url=target.subject,
        attempts=TRIED,
        timeout_s=min(30.0, max(1.0, seconds / 4)),
        deadline_s=max(1.0, seconds / 2),
        api_key_env=None,
    )
    endpoint.check()
    return ChatResponder(endpoint), "chat"


def _has_chat(place: str) -> bool:
    from holdfast.errors import require
    from holdfast.hub import offline

    try:
        tokenizer = require("transformers", "hf").AutoTokenizer.from_pretrained(
            place, trust_remote_code=False, **offline(place)
        )
    except Exception:  # a tokenizer that does not load has no template
        return False
    return bool(getattr(tokenizer, "chat_template", None))


def _remedy() -> Remedy:
    code = """\
from holdfast.confidence import mask_own_answer

messages = mask_own_answer(messages)  # before it is asked again"""
    text = "hide its earlier answer when it is asked again, and weigh advice outside of it"
    return Remedy(text, code, "systems/confidence")


CHECK = Check(NAME, QUESTION, 40.0, unfit, probe)
