"""The list in a chat model's message, or why none can be relied on. It takes time in proportion to the message.

Models think aloud, quote the question, correct themselves, and decorate what they write. One list that can be meant is
read, whatever it is dressed in; where two different ones could be, or where something follows that may take it back,
there is no answer, and the model is asked again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REASONING = re.compile(
    r"<(/?)(?:think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad)\b[^<>]{0,80}>"
    r"|(◁)(/?)think▷|\[(/?)THINK\]",
    re.IGNORECASE,
)
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]{0,80}<\|message\|>")

GROUP = re.compile(r"\[([^\[\]]*)\]")
"""Brackets without others inside."""

CHAIN = re.compile(r"\[\s*\d{1,9}\s*\](?:\s*(?:>|≻|→|->|&gt;)\s*\[\s*\d{1,9}\s*\])+")
"""A ranking as [2] > [1] > [3]."""

STRUCK = re.compile(r"~~[^~]*~~|<(?:s|del)>[^<]*</(?:s|del)>")
COMMENT = re.compile(r"//[^\n]*|/\*[^*]*\*/")
FINAL = re.compile(
    r"\b(?:final\W+(?:answer|order|list|result|ranking)|new order)\W*(?:is\W*)?$",
    re.IGNORECASE,
)
NOT_FINAL = re.compile(r"\b(?:not|no|isn't|never|wrong|instead)\b", re.IGNORECASE)
SECOND_THOUGHTS = re.compile(
    r"\b(?:wait|actually|correction|corrected|swap(?:ped)?|mistake|oops|on second thought|scratch that"
    r"|(?:that|this|it)(?: is|'s|’s) (?:wrong|incorrect|not right)"
    r"|should (?:come|go|be) (?:before|after|first|last))\b",
    re.IGNORECASE,
)
LOOK_BACK = 60
"""Characters before a list that may call it final."""

DECORATION = " \t\r\n*_`~\"'“”‘’"

Places = Callable[[list[Any]], tuple[list[int] | None, str]]
"""A list of a message as places among the items, or what is wrong with it."""


@dataclass(frozen=True)
class _Candidate:
    """A list in a message, and where it stands."""

    elements: list[Any]
    start: int
    end: int


def read_answer(text: str, *, order: bool, places: Places) -> tuple[list[int] | None, str]:
    """The answer in a message as places among the items, or what is wrong with it.

    Arguments:
        text: the message.
        order: lists hold numbers; else they hold items, as JSON.
        places: looks a list over.

    Returns:
        The places, and an empty text; or `None`, and the problem.
    """
    said = STRUCK.sub(" ", without_reasoning(text))
    candidates = _lists_of_numbers(said) if order else _json_lists(said)
    usable: list[tuple[_Candidate, list[int]]] = []
    others: list[_Candidate] = []
    problem = "there is no JSON list in it"
    for candidate in candidates:
        at, wrong = places(candidate.elements)
        if at is not None:
            usable.append((candidate, at))
        else:
            others.append(candidate)
            problem = wrong
    if not usable:
        return None, problem
    chosen = [(candidate, at) for candidate, at in usable if _called_final(said, candidate)] or usable
    answer, last = chosen[0][1], chosen[-1][0]
    after = [at for candidate, at in usable if candidate.start > last.start]
    if any(at != answer for at in [*(at for _, at in chosen), *after]):
        return None, "it holds several lists that differ"
    rest = said[last.end :]
    if any(len(other.elements) > 1 and other.start >= last.end for other in others):
        return None, "another list follows the answer, and cannot be used"
    if re.search(r"\[\s*[\d\"']", GROUP.sub(" ", rest)):
        return None, "another list follows the answer, and has no end"
    if SECOND_THOUGHTS.search(rest):
        return None, "words that follow the list may take it back"
    return answer, ""


def without_reasoning(text: str) -> str:
    """A message without what the model thinks before it answers, finished or not."""
    channels = list(CHANNEL.finditer(text))
    if channels:
        final = [match for match in channels if match[1].lower() == "final"]
        if not final:
            return ""
        text = re.split(r"<\|(?:end|return|start)\|>", text[final[-1].end() :], maxsplit=1)[0]
    said: list[str] = []
    depth, at = 0, 0
    for tag in REASONING.finditer(text):
        closing = "/" in (tag[1] or "", tag[3] or "", tag[4] or "")
        if depth == 0 and closing:
            said.clear()  # its beginning was a part of the prompt
        elif depth == 0:
            said.append(text[at : tag.start()])
        depth = max(depth - 1, 0) if closing else depth + 1
        at = tag.end()
    if depth == 0:
        said.append(text[at:])
    return " ".join(said)


def whole_number(element: Any) -> int | None:
    """A whole number, also where it comes as text, with a point, or decorated."""
    if isinstance(element, bool):
        return None
    if isinstance(element, int):
        return element
    if isinstance(element, float):
        return int(element) if element.is_integer() else None
    if not isinstance(element, str):
        return None
    match = re.fullmatch(r"#?([+-]?\d{1,9})(?:\.0*)?", element.strip(DECORATION))
    return int(match[1]) if match else None


def _called_final(text: str, candidate: _Candidate) -> bool:
    before = text[max(candidate.start - LOOK_BACK, 0) : candidate.start]
    return bool(FINAL.search(before)) and not NOT_FINAL.search(before)


def _lists_of_numbers(text: str) -> list[_Candidate]:
    """Lists in brackets, with elements in any dress, and rankings."""
    candidates = []
    ranked = list(CHAIN.finditer(text))
    for match in ranked:
        numbers: list[Any] = [int(number) for number in re.findall(r"\d+", match[0])]
        candidates.append(_Candidate(numbers, match.start(), match.end()))
    inside = iter(ranked)
    ranking = next(inside, None)
    for match in GROUP.finditer(text):
        while ranking is not None and ranking.end() <= match.start():
            ranking = next(inside, None)
        if ranking is None or match.start() < ranking.start():
            candidates.append(_Candidate(_elements(match[1]), match.start(), match.end()))
    return sorted(candidates, key=lambda candidate: candidate.start)


def _elements(inside: str) -> list[Any]:
    """The elements between two brackets; those that JSON knows as it reads them."""
    texts = re.split(r"[,，、;]", COMMENT.sub(" ", inside))
    if not texts[-1].strip():
        texts.pop()
    return [_element(text.strip()) for text in texts]


def _element(text: str) -> Any:
    number = whole_number(text)
    if number is not None:
        return number
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


TOKEN = re.compile(
    r"""\s+|(?P<comment>//[^\n]*|/\*[^*]*\*/)"""
    r"""|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<word>-?\d{1,400}(?:\.\d{1,400})?(?:[eE][+-]?\d{1,4})?(?![\w.])|true\b|false\b|null\b|NaN\b|-?Infinity\b)"""
    r"""|(?P<mark>[\[\]{},:])"""
)


def _json_lists(text: str) -> list[_Candidate]:
    """Lists as JSON writes them, outermost ones only; a comma may follow the last element.

    One pass with a stack, and no recursion: what opens and never ends costs no more than what does.
    """
    candidates: list[_Candidate] = []
    stack: list[_Open] = []
    at = text.find("[")
    while 0 <= at < len(text):
        token = TOKEN.match(text, at)
        good = token is not None
        if token is not None:
            good = _take(token, stack, candidates)
            at = token.end()
        if not good:
            # What was whole inside of what is broken still counts.
            candidates += [inner for frame in stack for inner in frame.lists]
            stack.clear()
            at = max(at, 0) + (token is None)
        if not stack:
            at = text.find("[", at)
    candidates += [inner for frame in stack for inner in frame.lists]
    return sorted(candidates, key=lambda candidate: candidate.start)


class _Open:
    """A list or an object whose end has not come."""

    def __init__(self, kind: str, start: int) -> None:
        self.kind, self.start = kind, start
        self.values: list[Any] = []
        self.lists: list[_Candidate] = []
        """Whole lists inside."""
        self.keys: list[str] = []
        self.waits_for = "value"
        """What may come: "value", "comma", or in an object "key" or "colon"."""


def _take(token: re.Match[str], stack: list[_Open], candidates: list[_Candidate]) -> bool:
    """Take one token of a list; whether it may stand here."""
    kind, written = token.lastgroup, token[0]
    if kind in (None, "comment"):
        return True
    if written in ("[", "{"):
        if stack and stack[-1].waits_for != "value":
            return False
        stack.append(_Open(written, token.start()))
        stack[-1].waits_for = "value" if written == "[" else "key"
        return True
    frame = stack[-1]
    if written in ("]", "}"):
        if (frame.kind == "[") != (written == "]") or frame.waits_for not in ("comma", "value", "key"):
            return False
        if frame.kind == "{" and frame.waits_for == "value":
            return False
        stack.pop()
        value: Any = frame.values if frame.kind == "[" else dict(zip(frame.keys, frame.values, strict=True))
        whole = [_Candidate(frame.values, frame.start, token.end())] if frame.kind == "[" else frame.lists
        if stack:
            stack[-1].lists += whole
            stack[-1].values.append(value)
            stack[-1].waits_for = "comma"
        else:
            candidates += whole
        return True
    if written == ",":
        good = frame.waits_for == "comma"
        frame.waits_for = "value" if frame.kind == "[" else "key"
        return good
    if written == ":":
        good = frame.waits_for == "colon"
        frame.waits_for = "value"
        return good
    if frame.waits_for == "key":
        if kind != "text":
            return False
        frame.keys.append(str(_scalar(written)))
        frame.waits_for = "colon"
        return True
    if frame.waits_for != "value":
        return False
    frame.values.append(_scalar(written))
    frame.waits_for = "comma"
    return True


def _scalar(written: str) -> Any:
    if written.startswith("'"):
        written = json.dumps(re.sub(r"\\(.)", r"\1", written[1:-1]))
    try:
        return json.loads(written)
    except ValueError:
        return written
