"""The card as a page: all of it, nothing from elsewhere, and the user's text as text."""

from __future__ import annotations

import dataclasses
import re
from email.message import Message
from html.parser import HTMLParser

import pytest

from holdfast.card import Card, Outcome, Remedy
from holdfast.card.page import safe_picture
from tests.card.fakes import MARKUP, PICTURE, card, finding, full_card, measure


class Elements(HTMLParser):
    """The elements of a page and its text, by the element that holds it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def hostile() -> Card:
    """A card on which every text has markup in it."""
    evil = dataclasses.replace(
        finding("sharpness", Outcome.FAILS),
        question=MARKUP,
        sentence=MARKUP,
        certainty=MARKUP,
        remedy=Remedy(MARKUP, MARKUP, f"systems/x{MARKUP}"),
        measures=(dataclasses.replace(measure(1.0, 0.1), name=MARKUP, meaning=MARKUP),),
        report={MARKUP: [MARKUP, "</pre></script><script>alert(2)</script>"]},
        picture=PICTURE.replace("</svg>", "<script>alert(3)</script><foreignObject><b>x</b></foreignObject></svg>"),
    )
    made = card([evil, finding("rat", Outcome.INAPPLICABLE, sentence=MARKUP)], MARKUP)
    return dataclasses.replace(made, command=f"holdfast check {MARKUP}", settings={MARKUP: MARKUP})


def test_all_of_the_card_is_on_the_page():
    made = full_card()
    page = made.to_html()
    assert page == made.to_html()
    parsed = Elements(page)
    for one in made.findings:
        assert one.question in parsed.text
        assert one.sentence.rstrip(".") in parsed.text or one.sentence.capitalize() in parsed.text
    assert "It is no function." in parsed.text
    assert made.answer in parsed.text
    assert "from holdfast.nn import x\nx(model)" in parsed.text
    assert '"deep": "text"' in parsed.text
    assert "holdfast check thing" in parsed.text
    assert "64 rows of 3 draws" in parsed.text
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = [attributes["href"] for tag, attributes in parsed.elements if tag in ("a", "use") and "href" in attributes]
    assert {link[1:] for link in linked} <= set(ids)


def test_the_first_screen_comes_before_the_sections():
    page = full_card().to_html()
    places = [page.index(part) for part in ('id="answer"', "<b>Try:</b>", '<section class="probe"')]
    assert places == sorted(places)


@pytest.mark.parametrize("against", [None, hostile()])
def test_markup_of_the_user_is_text(against):
    made = hostile()
    page = made.to_html(against=against)
    parsed = Elements(page)
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert "foreignobject" not in [tag for tag, _ in parsed.elements]
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert parsed.text.count(MARKUP) >= 10


def test_nothing_comes_from_elsewhere():
    page = full_card().to_html(against=full_card("other"))
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert "default-src 'none'" in page
    assert "@import" not in page


def test_two_cards():
    here, there = (
        card([finding("sharpness", measures=(measure(value, 0.01),)), finding("rat")], name)
        for value, name in ((0.9, "fresh"), (0.2, "worn"))
    )
    page = here.to_html(against=there)
    text = " ".join(Elements(page).text.split())
    assert "fresh beside worn" in text
    assert "What differs by more than chance sharpness: entropy is 0.9, in the other 0.2: better here." in text
    assert page.index('id="differs"') < page.index('id="answer"')
    assert "No more than chance would make: rat" in text
    assert page.count('<svg class="plot"') == 4
    assert "Nothing differs by more than chance" in here.to_html(against=here)


def test_two_subjects_have_places_of_their_own():
    made = Card((full_card("one").subjects[0], full_card("two").subjects[0]))
    parsed = Elements(made.to_html())
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"probe-sharpness", "probe-sharpness-1"} <= set(ids)


@pytest.mark.parametrize(
    "drawn",
    [
        "",
        "<p>no picture</p>",
        "<svg>",
        '<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>',
        "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    ],
)
def test_what_is_no_picture_is_left_out(drawn):
    assert safe_picture(drawn, "x") == ""


def test_a_picture_only_draws():
    drawn = (
        '<svg onload="a()"><a href="http://x"><text>in a link</text></a><use href="http://x#y" /><use href="#y" />'
        '<image href="data:image/png;base64,aa" /><image href="data:image/svg+xml,aa" /><g style="fill: url(http://x)">'
        '<animate attributeName="href" /></g><path id="y" clip-path="url(#y)" style="position: fixed" d="M0 0" /></svg>'
    )
    assert safe_picture(drawn, "p") == (
        '<svg><use /><use href="#p-y" /><image href="data:image/png;base64,aa" /><image /><g />'
        '<path id="p-y" clip-path="url(#p-y)" d="M0 0" /></svg>'
    )


def test_two_cards_of_one_name_are_told_apart():
    text = " ".join(Elements(full_card().to_html(against=full_card())).text.split())
    assert "thing (this one) beside thing (the other)" in text
    assert re.search(r"thing \(the other\) ?fails ?Sharpness fails", text)


def test_advice_stands_once_on_the_first_screen_and_is_in_the_summary():
    made = card([finding("sharpness", Outcome.FAILS, remedy=Remedy("put it right", "x()", "systems/x"))])
    first = made.to_html().partition('<section class="probe"')[0]
    assert first.count("put it right") == 1
    assert "Try: put it right." in made.summary()


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        (["Documentation, https://h.example/docs/"], "https://h.example/docs/systems/x.html#part"),
        (["Repository, https://h.example/r"], "https://h.example/r/blob/HEAD/docs/systems/x.md#part"),
        (["Documentation, javascript:alert(1)", "Other, https://h.example"], None),
        (None, None),
    ],
)
def test_the_documentation_is_linked_where_it_is_published(monkeypatch, urls, address):
    published = Message()
    for url in urls or ():
        published["Project-URL"] = url
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: published)
    parsed = Elements(card([finding("x", Outcome.FAILS, remedy=Remedy("t", "", "systems/x#part"))]).to_html())
    links = [attributes for tag, attributes in parsed.elements if tag == "a" and not attributes["href"].startswith("#")]
    assert links == ([] if address is None else [{"href": address, "rel": "noopener noreferrer"}])
    assert address is not None or "docs/systems/x.md" in parsed.text


def test_an_empty_card():
    assert "Nothing was measured." in Card(()).to_html()


def test_a_long_report_is_cut_on_the_page_and_whole_in_json():
    made = card([finding("rat", report={"rows": ["x" * 100] * 5000})])
    assert len(made.to_html()) < 200_000
    assert "more characters in card.json" in made.to_html()
    assert len(made.to_dict()["subjects"][0]["findings"][0]["report"]["rows"]) == 5000
