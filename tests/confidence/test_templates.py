"""Wordings: a hidden answer leaves no trace, and what a prompt says can be read back from its text."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.confidence.plan import Condition, prompt_of
from holdfast.confidence.questions import Question
from holdfast.confidence.templates import PLAIN, TEMPLATES, Template, first_prompt, read_prompt, second_prompt
from holdfast.errors import ArgumentError

QUESTION = Question("q", "Which city is larger?", ("Lima", "Oslo"))
THREE = Question("t", "Which is a prime?", ("4", "6", "7"), 2)

templates = st.builds(
    lambda template, form, system, earlier: dataclasses.replace(template, form=form, system=system, earlier=earlier),
    st.sampled_from(list(TEMPLATES.values())),
    st.sampled_from(["chat", "flat"]),
    st.sampled_from(["", "Be brief."]),
    st.sampled_from(["letter", "letter_and_text"]),
)


def content(messages):
    return "\n".join(message["content"] for message in messages)


@given(
    template=templates,
    turn=st.integers(0, 2),
    accuracy=st.sampled_from([0.5, 0.6, 0.955, 1.0]),
    named=st.integers(0, 1),
)
def test_a_hidden_prompt_does_not_depend_on_the_choice(template, turn, accuracy, named):
    order = QUESTION.order(turn)
    # The letter that the adviser names is the same; whether that is agreement depends on the choice.
    advice = {choice: "same" if choice == named else "opposite" for choice in (0, 1)}
    prompts = [
        prompt_of(QUESTION, order, template, Condition("hidden", advice[choice], accuracy), choice) for choice in (0, 1)
    ]
    assert prompts[0] == prompts[1]
    neutral = [
        prompt_of(QUESTION, order, template, Condition("hidden", "neutral", accuracy), choice) for choice in (0, 1)
    ]
    assert neutral[0] == neutral[1] != prompts[0]


def test_a_hidden_prompt_takes_no_answer():
    with pytest.raises(ArgumentError, match="displayed"):
        second_prompt(QUESTION, (0, 1), PLAIN, "hidden", displayed=0, advised=None, accuracy=0.7)
    with pytest.raises(ArgumentError, match="displayed"):
        second_prompt(QUESTION, (0, 1), PLAIN, "shown", displayed=None, advised=None, accuracy=0.7)
    with pytest.raises(ArgumentError, match="accuracy"):
        second_prompt(QUESTION, (0, 1), PLAIN, "hidden", displayed=None, advised=1, accuracy=None)
    with pytest.raises(ArgumentError, match="accuracy"):
        second_prompt(QUESTION, (0, 1), PLAIN, "hidden", displayed=None, advised=1, accuracy=70)


@given(
    template=templates,
    turn=st.integers(0, 2),
    display=st.sampled_from(["shown", "hidden", "other", "shown_flipped"]),
    advised=st.sampled_from([None, 0, 1]),
    accuracy=st.sampled_from([None, 0.5, 0.6, 0.955, 1.0]),
    displayed=st.integers(0, 1),
)
def test_what_a_prompt_says_is_read_from_its_text(template, turn, display, advised, accuracy, displayed):
    order = QUESTION.order(turn)
    if accuracy is None:
        advised = None
    option = None if display == "hidden" else displayed
    messages = second_prompt(QUESTION, order, template, display, displayed=option, advised=advised, accuracy=accuracy)
    prompt = read_prompt(messages, template)
    assert prompt.text == QUESTION.text
    assert prompt.options == tuple(QUESTION.options[place] for place in order)
    assert prompt.display == ("shown" if display == "shown_flipped" else display)
    assert prompt.displayed == (None if option is None else order.index(option))
    assert prompt.advised == (None if advised is None else order.index(advised))
    assert prompt.accuracy == (None if accuracy is None else pytest.approx(accuracy))
    assert read_prompt(first_prompt(QUESTION, order, template), template).display is None


def test_all_prompts_of_a_question_differ():
    cells = [
        Condition(*levels)
        for levels in itertools.product(
            ("shown", "hidden", "other", "shown_flipped"), ("same", "opposite", "neutral"), (0.6, 0.9)
        )
    ]
    for template in TEMPLATES.values():
        for form in ("chat", "flat"):
            used = dataclasses.replace(template, form=form)
            prompts = [
                content(prompt_of(THREE, order, used, cell, 1)) for order in ((0, 1, 2), (2, 1, 0)) for cell in cells
            ]
            prompts.append(content(first_prompt(THREE, (0, 1, 2), used)))
            assert len(set(prompts)) == len(prompts)
            assert all("{" not in prompt for prompt in prompts)


def test_the_forms_say_the_same_in_turns_and_in_one_message():
    flat = dataclasses.replace(PLAIN, form="flat", system="Be brief.")
    chat = dataclasses.replace(PLAIN, system="Be brief.")
    cell = Condition("shown", "opposite", 0.7)
    (single,) = prompt_of(THREE, (0, 1, 2), flat, cell, 2)
    turns = prompt_of(THREE, (0, 1, 2), chat, cell, 2)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[2]["content"] == "My answer: C"
    assert single == {"role": "user", "content": "\n\n".join(turn["content"] for turn in turns) + "\nAnswer:"}
    assert "Advice model (accuracy 70% on questions like these) chose" in single["content"]


def test_an_answer_of_another_model_does_not_stand_in_the_own_place():
    turns = prompt_of(QUESTION, (1, 0), PLAIN, Condition("other", "neutral", 0.9), 0)
    assert turns[1]["content"] == "My answer: xx"
    assert "chose B.\nAdvice model (accuracy 90% on questions like these) chose xx." in turns[2]["content"]


def test_a_flipped_display_shows_the_rival_as_if_it_were_the_choice():
    flipped = prompt_of(QUESTION, (0, 1), PLAIN, Condition("shown_flipped", "neutral", 0.9), 0)
    assert flipped == prompt_of(QUESTION, (0, 1), PLAIN, Condition("shown", "neutral", 0.9), 1)


def test_without_an_adviser_there_is_no_sentence_about_one():
    turns = prompt_of(QUESTION, (0, 1), PLAIN, Condition("hidden", "neutral", None), 0)
    assert "Advice" not in content(turns)
    assert "%" not in content(turns)


def test_a_hash_is_of_every_word():
    changes = {"name": "x", "final": "Now?", "mask": "--", "form": "flat", "system": "s", "earlier": "letter_and_text"}
    hashes = {dataclasses.replace(PLAIN, **{name: value}).hash for name, value in changes.items()} | {PLAIN.hash}
    assert len(hashes) == len(changes) + 1
    assert len({template.hash for template in TEMPLATES.values()}) == 3


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("answer", "My answer:"),
        ("other", "{answer}"),
        ("advice", "{letter}"),
        ("final", "Final {letter}?"),
        ("hidden", "{"),
    ],
)
def test_a_template_has_its_placeholders(field, text):
    with pytest.raises(ArgumentError, match=rf"Template\.{field}"):
        dataclasses.replace(PLAIN, **{field: text})


def test_a_mask_is_no_label():
    with pytest.raises(ArgumentError, match="mask"):
        dataclasses.replace(PLAIN, mask="X")


def test_other_text_is_no_prompt():
    assert read_prompt([{"role": "user", "content": "Hello"}], PLAIN) is None
    assert isinstance(PLAIN, Template)
