"""The requests of a run for other programs: one JSON object a line, each complete in itself."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.confidence.questions import LETTERS
from holdfast.confidence.requests import Request, duplicate_requests, first_requests, second_requests
from holdfast.confidence.responders.interface import Answer
from holdfast.confidence.results import Units
from holdfast.confidence.store import Run, Store


def request_records(store: Store, run_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Every request that has an answer: stage 1, stage 2, and what was sent once more.

    Arguments:
        store: where the answers are.
        run_id: which run; may be left out where there is only one.

    Returns:
        Records with

        - `run`, `model`, `key`: of the run, the model and the request;
        - `question`, `template`, `stage` (1 or 2), `duplicate` (how often it was sent before), `display`, `advice`,
          `accuracy` (`null` in stage 1);
        - `messages`: the whole conversation; `options`: their texts, as the question lists them; `order`: the index of
          the option at each place; `labels`: at each place;
        - `log_probabilities`: of each label, up to a constant (`null`: a bare choice, or no reading), `source` of them,
          `bounds`: labels of which only an upper bound is known, `mass`: share of probability on all of them;
        - `choice`: index of the option that leads (`null`: a tie, or no reading), `answer`: of the right one (`null`:
          unknown), `correct`: whether they are the same;
        - `problem`: why there is no reading.

    Errors:
        ArgumentError: there is no such run, or the file cannot be read.
    """
    this = store.run(run_id)
    answers = store.answers()
    again = (twice for _, twice in duplicate_requests(this))
    every = itertools.chain(first_requests(this), second_requests(this, Units.read(this, answers).choice), again)
    for request in every:
        answer = answers.get(request.key)
        if answer is not None:
            yield _record(this, request, answer)


def export_requests(store: Store, path: Path | str, run_id: str | None = None) -> int:
    """Write the records of `request_records`, one on each line.

    Arguments:
        store: where the answers are.
        path: of the file, which is replaced.
        run_id: which run.

    Returns:
        How many there are.

    Errors:
        ArgumentError: see `request_records`.
        OSError: the file cannot be written.
    """
    count = 0
    records = request_records(store, run_id)
    first = next(records, None)  # what is wrong with the store shows before the file is touched
    with Path(path).open("w", encoding="utf-8") as file:
        for record in itertools.chain([] if first is None else [first], records):
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _record(this: Run, request: Request, answer: Answer) -> dict[str, Any]:
    question = request.question
    order = question.order(request.turn)
    labels = LETTERS[: len(order)]
    cell = None if request.cell < 0 else this.plan.design.cells[request.cell]
    read = len(answer.scores) == len(order)
    # Scores of a bare choice are no log-probabilities.
    told = read and this.backend.source != "choices"
    best = [place for place, score in enumerate(answer.scores) if score == max(answer.scores)]
    choice = order[best[0]] if read and len(best) == 1 else None
    return {
        "run": this.id,
        "model": this.backend.model,
        "key": request.key,
        "question": question.id,
        "template": request.template.label,
        "stage": 1 if cell is None else 2,
        "display": None if cell is None else cell.display,
        "advice": None if cell is None else cell.advice,
        "accuracy": None if cell is None else cell.accuracy,
        "duplicate": request.duplicate,
        "messages": request.messages,
        "options": list(question.options),
        "order": list(order),
        "labels": list(labels),
        "log_probabilities": dict(zip(labels, answer.scores, strict=True)) if told else None,
        "source": this.backend.source,
        "bounds": [labels[place] for place in answer.missing] if told else [],
        "mass": None if math.isnan(answer.mass) else answer.mass,
        "choice": choice,
        "answer": question.answer,
        "correct": None if choice is None or question.answer is None else choice == question.answer,
        "problem": answer.problem,
    }
