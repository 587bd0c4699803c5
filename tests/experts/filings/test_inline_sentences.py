"""Sentences and spans of a small inline document."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.inline_sentences import TaggedNumeral, tagged_sentences

START = '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:ix="http://www.xbrl.org/2013/inlineXBRL"><body>'
END = "</body></html>"


def sentences(tmp_path, body):
    """The tagged sentences of a document with this body."""
    path = tmp_path / "acme.htm"
    path.write_text(f"{START}{body}{END}", encoding="utf-8")
    return tagged_sentences(path)


def tagged(text, tag="us-gaap:Goodwill"):
    """A tagged number."""
    return f'<ix:nonFraction name="{tag}">{text}</ix:nonFraction>'


def test_a_block_is_cut_into_sentences_with_spans(tmp_path):
    """Inline elements join their text, blanks collapse, untagged sentences are left out."""
    body = f"""<div><span>Cash was $</span><span>{tagged(" 5.2 ", "us-gaap:Cash")} million
      and</span> goodwill ${tagged("three")}.  Nothing here at all now. Debt fell to
      {tagged("7")}% of the U.S. total!</div>"""
    first, second = sentences(tmp_path, body)
    assert first.text == "Cash was $ 5.2 million and goodwill $three."
    assert first.numerals == [
        TaggedNumeral("5.2", "us-gaap:Cash", 11, 14),
        TaggedNumeral("three", "us-gaap:Goodwill", 37, 42),
    ]
    assert second.text == "Debt fell to 7% of the U.S. total!"
    assert [(one.text, one.start, one.end) for one in second.numerals] == [("7", 13, 14)]


def test_a_sentence_does_not_begin_with_a_tagged_numeral(tmp_path):
    """Otherwise "No. 5" would be two sentences."""
    (only,) = sentences(tmp_path, f"<p>We follow Rule No. {tagged('5')} of the book.</p>")
    assert only.text == "We follow Rule No. 5 of the book."


def test_tables_hidden_text_and_short_pieces_are_left_out(tmp_path):
    """And a block inside a block ends the sentence before it."""
    long = f"This is a sentence with {tagged('1')}."
    body = f"""<ix:header><ix:hidden>{long}</ix:hidden></ix:header><div style="display: none">{long}</div>
      <table><tr><td>{long}</td></tr></table><p>Only {tagged("2")} words here.</p>
      <div>Before the block {tagged("3")}<p>inside the block {tagged("4")} words</p> after it {tagged("")}
      more words follow {tagged("6")}</div>"""
    assert [one.text for one in sentences(tmp_path, body)] == [
        "inside the block 4 words",
        "after it more words follow 6",
    ]


def test_of_nested_tags_the_outermost_counts(tmp_path):
    """One numeral as written is one numeral."""
    (only,) = sentences(
        tmp_path, f"<p>There were {tagged(tagged('no', 'a:Inner'), 'a:Outer')} such loans left.</p>"
    )
    assert [(one.text, one.tag) for one in only.numerals] == [("no", "a:Outer")]


def test_deeply_nested_documents_are_read(tmp_path):
    """Deeper than Python's stack."""
    depth = 1500
    body = "<span>" * depth + f"Deep down there were {tagged('9')} things." + "</span>" * depth
    assert [one.text for one in sentences(tmp_path, body)] == ["Deep down there were 9 things."]


def test_a_document_that_is_no_xml_is_named(tmp_path):
    """With the line."""
    with pytest.raises(FinLoraError, match=r"acme\.htm, line 3: not well-formed"):
        sentences(tmp_path, "\n<br>\n")
