"""Sessions: who may step next, what was answered, and which have been left alone for too long.

Nothing here waits or computes; the event loop of the server is the only one to call it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.models.action.domain import Domain
from holdfast.serving.protocol import Answer, Refusal, StepRequest

MOST_BEHIND = 64
"""Steps of a session that were answered by the fallback and are still to be read. More of them, and the session ends:
a model that cannot keep up would be further behind with every step."""


@dataclass
class Lane:
    """What the model remembers of a session. The model's thread writes it.

    Arguments:
        memory: after all the steps that were read.
        broken: whether a step could not be read, so that no later one may be. It is mended where that step was not
            answered: then there is no later one yet.
    """

    memory: Any
    broken: bool = False


@dataclass
class Session:
    """One control loop.

    Arguments:
        id: that nobody can guess: whoever knows it may step.
        domain: of its observations and actions.
        lane: what the model remembers of it.
        used: when it was last asked for something.
        expected: number of the next step.
        answered: whether all steps before it have been answered.
        behind: steps that were taken on and have not been read.
        last: the last answer.
        carried_out: the fallback action that was answered in place of the model's last one; `None`: the model's own.
    """

    id: str
    domain: Domain
    lane: Lane
    used: float
    expected: int = 0
    answered: bool = True
    behind: int = 0
    last: Answer | None = None
    carried_out: np.ndarray | None = None


@dataclass
class Sessions:
    """All of them.

    Arguments:
        most: at a time.
        ttl_s: seconds after which one that nobody asks for anything is given up.
        clock: seconds that only go forward.
        on_evict: is called for each that is given up.
    """

    most: int
    ttl_s: float
    clock: Callable[[], float]
    on_evict: Callable[[], object] = lambda: None
    by_id: dict[str, Session] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.by_id)

    def open(self, domain: Domain, memory: Any) -> Session:
        """A new session.

        Errors:
            Refusal: there are too many.
        """
        self.evict()
        if len(self) >= self.most:
            raise Refusal("full", f"all {self.most} sessions are in use; close one, or try again later")
        session = Session(secrets.token_urlsafe(16), domain, Lane(memory), self.clock())
        self.by_id[session.id] = session
        return session

    def get(self, name: str) -> Session:
        """The session of an id, which is in use by that.

        Errors:
            Refusal: there is none, or none any more.
        """
        self.evict()
        session = self.by_id.get(name)
        if session is None:
            raise Refusal("unknown session", "unknown session: it was closed, given up, or the server began anew")
        session.used = self.clock()
        return session

    def close(self, session: Session) -> None:
        """Forget a session; nothing if it is forgotten already."""
        self.by_id.pop(session.id, None)

    def evict(self) -> None:
        """Give up those that nobody has asked for anything for too long, but for those that wait for an answer."""
        since = self.clock() - self.ttl_s
        for session in [session for session in self.by_id.values() if session.answered and session.used < since]:
            self.close(session)
            self.on_evict()

    def accept(self, session: Session, request: StepRequest) -> None:
        """Take a step on.

        Errors:
            Refusal: it is not the next one, or the one before has not been answered, or the model is too far behind.
        """
        expected = session.expected
        if request.step != expected:
            what = "was taken on already" if request.step < expected else "comes too early"
            message = f"step {request.step} {what}: expected step {expected}"
            raise Refusal("out of order", message, expected=expected, answered=session.answered)
        if not session.answered:
            message = f"step {expected - 1} is not answered yet: expected step {expected} after that"
            raise Refusal("out of order", message, expected=expected, answered=False)
        if session.behind >= MOST_BEHIND:
            self.close(session)
            message = f"the model is {session.behind} steps behind this session, which is closed: it cannot keep up"
            raise Refusal("behind", message)
        session.expected += 1
        session.answered = False
        session.behind += 1

    def answer(self, session: Session, answer: Answer, carried_out: np.ndarray | None) -> None:
        """Keep what a step was answered with.

        Arguments:
            session: of the step.
            answer: what the client is told.
            carried_out: the fallback action, where the answer is that.
        """
        session.answered, session.last, session.carried_out = True, answer, carried_out
        session.used = self.clock()

    def take_back(self, session: Session) -> None:
        """A step that was taken on cannot be read: the same number is expected again."""
        session.lane.broken = False
        session.expected -= 1
        session.answered = True
        session.used = self.clock()
