"""A server that is not ours: a tiny model under `transformers serve`, over both protocols."""

from __future__ import annotations

import dataclasses
import math
import socket

import pytest

for module in ("aiohttp", "fastapi", "openai", "tenacity", "torch", "uvicorn"):
    pytest.importorskip(module)
serve = pytest.importorskip("transformers.cli.serve")

import torch  # noqa: E402

from holdfast.confidence.extraction import NoLogprobs  # noqa: E402
from holdfast.confidence.plan import Plan, TrialDesign  # noqa: E402
from holdfast.confidence.requests import first_requests, second_requests  # noqa: E402
from holdfast.confidence.responders import ChatResponder, SystemOneResponder, simulated_questions  # noqa: E402
from holdfast.confidence.store import Run  # noqa: E402
from holdfast.confidence.templates import PLAIN  # noqa: E402
from holdfast.llm import Endpoint  # noqa: E402
from tests.confidence import tiny  # noqa: E402

MODEL, TOKENIZER = tiny.llama(), tiny.tokenizer()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Name of the model, and address of the server."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    MODEL.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve.Serve(
        force_model=str(folder), host="127.0.0.1", port=port, device="cpu", log_level="error", non_blocking=True
    )
    try:
        yield str(folder), f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill_server()


def asks(backend, form: str) -> list:
    """Prompts of both stages."""
    design = TrialDesign(accuracies=(0.7,), templates=(dataclasses.replace(PLAIN, form=form),))
    this = Run(backend, Plan(tuple(simulated_questions(1)), design))
    return [request.ask() for request in (*first_requests(this), *second_requests(this, [0]))]


def test_the_systemone_protocol_is_the_model_itself(served):
    name, base_url = served
    model = Endpoint(name, base_url=base_url, api_key_env=None, protocol="systemone", first_wait_s=0.2)
    responder = SystemOneResponder(model)
    prompts = {ask.key: ask for ask in asks(responder.backend, "flat")}
    answers = list(responder.answer(prompts.values()))
    assert {answer.key for answer in answers} == set(prompts)
    assert len(answers) == 2 * (1 + 9)
    for answer in answers:
        ask = prompts[answer.key]
        options = "\n".join(f"{label}. {option}" for label, option in zip(ask.labels, ask.options, strict=True))
        asked = "Answer with the letter of the option that fits best (A to B) only."
        text = f"{ask.messages[0]['content']}\n\n{options}\n{asked}"
        tokens = TOKENIZER.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            logits = MODEL(**tokens).logits[0, -1]
        expected = logits[TOKENIZER.convert_tokens_to_ids(list(ask.labels))].log_softmax(dim=0).tolist()
        assert answer.scores == pytest.approx(expected, abs=1e-4)
        assert math.isnan(answer.mass)
        assert answer.raw["model"] == name


def test_the_chat_protocol_answers_200_without_log_probabilities(served):
    name, base_url = served
    responder = ChatResponder(Endpoint(name, base_url=base_url, api_key_env=None, first_wait_s=0.2))
    with pytest.raises(NoLogprobs, match=r"answers 200 without log-probabilities .*: it names none.*systemone"):
        list(responder.answer(asks(responder.backend, "chat")))
