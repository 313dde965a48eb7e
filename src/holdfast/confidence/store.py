"""Runs on disk: what was asked, of whom, and one answer a request, only ever appended to.

One file of JSON lines (`holdfast.llm.AnswerFile`). A run is a line with the whole plan and the back end; an answer is a
line under the key of its request. Several runs may share a file, and answers to equal requests serve all of them: a
pilot is the beginning of a larger run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.confidence.plan import Plan
from holdfast.confidence.responders.interface import Answer, Backend
from holdfast.confidence.templates import Template
from holdfast.errors import ArgumentError
from holdfast.llm import AnswerFile, Message
from holdfast.llm.answer_file import without_garbage_collection

RUN = "run-"
"""Begins the keys of runs."""


@dataclass(frozen=True)
class Run:
    """What was asked of whom.

    Arguments:
        backend: who answers.
        plan: what is asked.
    """

    backend: Backend
    plan: Plan

    @property
    def id(self) -> str:
        """Hash of both, a dozen characters."""
        text = json.dumps([asdict(self.backend), self.plan.hash], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Keys:
    """Keys of requests: a hash of model, kind of back end, host, parameters, template, and the rendered conversation.

    Arguments:
        backend: who is asked.
        template: of the prompts.
    """

    def __init__(self, backend: Backend, template: Template) -> None:
        about = [backend.model, backend.kind, backend.host, backend.params, backend.samples, template.hash]
        self._start = hashlib.sha256(json.dumps(about, sort_keys=True).encode())

    def of(self, messages: Sequence[Message]) -> str:
        """The key of a conversation."""
        whole = self._start.copy()
        for message in messages:
            role, content = message["role"], message["content"]
            # With the lengths before them no two conversations run together to the same text.
            whole.update(f"{len(role)}:{role}{len(content)}:{content}".encode("utf-8", "surrogatepass"))
        return whole.hexdigest()


Record = Callable[[Answer, Mapping[str, Any]], None]
"""Writes an answer, and words about its request for people who read the file."""


class Store:
    """Runs and answers in one file.

    Arguments:
        path: the file; it is made when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = AnswerFile(path, "store")

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def answers(self) -> dict[str, Answer]:
        """All answers by key.

        Errors:
            ArgumentError: the file cannot be read.
        """
        answers = {}
        with without_garbage_collection():
            for key, record in self._file.read().items():
                if not key.startswith(RUN):
                    try:
                        answers[key] = Answer.of_record(key, record)
                    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
                        continue  # not one of ours: it is asked for again
        return answers

    def runs(self) -> dict[str, Run]:
        """All runs that can be read by id, in the order in which they began; those of another version cannot.

        Errors:
            ArgumentError: the file cannot be read.
        """
        return {name: run for name, run in self._records() if run is not None}

    def check(self) -> None:
        """See that what is there, if anything is, is a store, before anything is asked.

        Errors:
            ArgumentError: it is something else, or cannot be read.
        """
        self._file.check()

    def prepare(self) -> None:
        """Make the file if it is not there, and see that it can be written, before anything is asked.

        Errors:
            ArgumentError: it cannot, or is something else.
        """
        self._file.prepare()

    def run(self, run_id: str | None = None) -> Run:
        """One run; it need not be named where there is only one.

        Errors:
            ArgumentError: there is none of that name, none at all, or several to choose from; or it cannot be read.
        """
        records = dict(self._records())
        if not records:
            raise ArgumentError("store", "a file that holds a run of the probe", f"{self.path}, which holds none")
        runs = {name: run for name, run in records.items() if run is not None}
        if run_id is None and len(runs) == 1:
            return next(iter(runs.values()))
        if not runs or (run_id in records and run_id not in runs):
            words = f"{self.path}, whose run {run_id or next(iter(records))} cannot be read"
            raise ArgumentError("store", "runs of this version", words)
        if run_id is None or run_id not in runs:
            known = "; ".join(f"{name}: {described(run)}" for name, run in runs.items())
            raise ArgumentError("run", "one of the runs in the store", f"{run_id or 'no name'} (there are {known})")
        return runs[run_id]

    def _records(self) -> Iterator[tuple[str, Run | None]]:
        """Names of runs, and the runs; `None` where one cannot be read."""
        for key, record in self._file.read().items():
            if key.startswith(RUN):
                run = None
                with suppress(Exception):  # cattrs gathers what is wrong in groups of its own
                    run = Run(Backend(**record["backend"]), Plan.of_record(record["plan"]))
                yield key.removeprefix(RUN), run

    @contextmanager
    def writing(self, run: Run | None) -> Iterator[Record]:
        """Begin or continue a run, alone: nobody else can write to the file meanwhile.

        Arguments:
            run: it is written down if it is new; `None`: answers that belong to no run yet.

        Returns:
            The function that writes answers, each of them handed to the system at once.

        Errors:
            ArgumentError: another program writes to the file, or it cannot be written.
        """
        with self._file.writer() as write:
            if run is not None and run.id not in self.runs():
                write({"key": RUN + run.id, "answer": {"backend": asdict(run.backend), "plan": run.plan.to_record()}})

            def record(answer: Answer, about: Mapping[str, Any]) -> None:
                write({"key": answer.key, "answer": answer.to_record(), "about": about})

            yield record


def described(run: Run) -> str:
    """A run in a few words."""
    templates = ", ".join(template.label for template in run.plan.design.templates)
    where = f" at {run.backend.host}" if run.backend.host else ""
    return f"{run.backend.model} ({run.backend.kind}{where}), {len(run.plan.questions)} questions, {templates}"
