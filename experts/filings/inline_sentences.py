"""Sentences of an inline XBRL document with their tagged numerals, as FiNER has them (arXiv:2203.06482).

A sentence is part of one block of running text: tables, the hidden header and what the style hides are left
out, elements inside a line join their text. It ends at ``.``, ``!`` or ``?`` before a blank and a character
that is not a lower-case letter, but never before a tagged numeral, which would cut "No. 5" in two.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from .xml_files import parse_xml

MIN_WORDS = 5
"""Shorter pieces are headings or remains of a page break."""

_INLINE_NAMESPACE = re.compile(r"http://www\.xbrl\.org/\d{4}/inlineXBRL")
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|br|center|d[dlt]|div|fieldset|figure|footer|form|h[1-6]|header|hr|li"
    "|main|nav|ol|p|pre|section|table|ul"
)
_HIDDEN = re.compile(r"display\s*:\s*none")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z\s])")


@dataclass(frozen=True)
class TaggedNumeral:
    """A numeral that the company tagged.

    Attributes:
        text: As written, such as "5.2" or "three"; scale and sign are not applied.
        tag: Concept with its prefix, such as "us-gaap:Goodwill"; the outermost of nested ones.
        start: Index of its first character in the sentence.
        end: Index after its last character.
    """

    text: str
    tag: str
    start: int
    end: int


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence with at least one tagged numeral, blanks collapsed.

    Attributes:
        text: The sentence; ``text[numeral.start : numeral.end] == numeral.text`` for each numeral.
        numerals: In order, at least one.
    """

    text: str
    numerals: list[TaggedNumeral]


def tagged_sentences(document: Path) -> list[TaggedSentence]:
    """All sentences of at least ``MIN_WORDS`` words that hold a tagged numeral, in document order.

    Raises:
        FinLoraError: The document cannot be read or is not well-formed.
    """
    root = parse_xml(document)
    return [sentence for block in _blocks(root) for sentence in block.sentences()]


class _Block:
    """Text of one block under construction, with single blanks."""

    def __init__(self) -> None:
        self.text = ""
        self.numerals: list[TaggedNumeral] = []

    def add(self, text: str | None) -> None:
        collapsed = re.sub(r"\s+", " ", text or "")
        self.text += collapsed.lstrip() if not self.text or self.text.endswith(" ") else collapsed

    def add_numeral(self, text: str, tag: str) -> None:
        self.add(text[: len(text) - len(text.lstrip())])
        start = len(self.text)
        self.add(text.strip())
        if len(self.text) > start:
            self.numerals.append(TaggedNumeral(self.text[start:], tag, start, len(self.text)))
        self.add(text[len(text.rstrip()) :])

    def sentences(self) -> Iterator[TaggedSentence]:
        starts = {numeral.start for numeral in self.numerals}
        begin = 0
        ends = [(match.start(), match.end()) for match in _SENTENCE_END.finditer(self.text)]
        for end, following in [*(pair for pair in ends if pair[1] not in starts), (len(self.text), 0)]:
            text = self.text[begin:end].rstrip()
            numerals = [
                TaggedNumeral(one.text, one.tag, one.start - begin, one.end - begin)
                for one in self.numerals
                if begin <= one.start and one.end <= end
            ]
            if numerals and len(text.split()) >= MIN_WORDS:
                yield TaggedSentence(text, numerals)
            begin = following


def _blocks(root: etree._Element) -> Iterator[_Block]:
    # A stack instead of recursion: documents may be nested deeper than Python allows.
    block = _Block()
    skipped: etree._Element | None = None
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if skipped is not None:
            if event == "end" and element is skipped:
                skipped = None
                block.add(element.tail)
            continue
        is_inline, name = _kind(element)
        if not is_inline and _BLOCK.fullmatch(name):
            yield block
            block = _Block()
        if event == "end":
            block.add(element.tail)
        elif is_inline and name == "nonFraction":
            block.add_numeral("".join(map(str, element.itertext())), element.get("name") or "")
            skipped = element
        elif _is_skipped(element, is_inline, name):
            skipped = element
        else:
            block.add(element.text)
    yield block


def _is_skipped(element: etree._Element, is_inline: bool, name: str) -> bool:
    if is_inline:
        return name == "header"
    return name in ("table", "head", "script", "style") or bool(_HIDDEN.search(element.get("style") or ""))


def _kind(element: etree._Element) -> tuple[bool, str]:
    name = etree.QName(element)
    return bool(_INLINE_NAMESPACE.fullmatch(name.namespace or "")), name.localname
