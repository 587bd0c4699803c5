"""Which definitions become questions."""

from finlora.experts.filings.filing import Filing
from finlora.experts.tasks.term_questions import term_questions


def test_terms_are_asked_by_label_and_only_if_the_definition_says_something() -> None:
    """Brackets of the taxonomy are no part of a term; two definitions of one label are none."""
    terms = {
        "acme:Robots": ("Robots [Member]", "Machines that work without people [Member]"),
        "acme:Plant": ("Plant in Ohio and Texas", "Plants in Ohio and in Texas [Member]"),
        "acme:Short": ("Short", "A short definition"),
        "acme:One": ("Content", "Films and series that may be shown for years"),
        "acme:Two": ("Content", "Books and papers that may be printed for years"),
        "acme:Again": ("Library", "Films and series that may be shown for years"),
        "acme:Again2": ("Library", "Films and series that may be shown for years"),
        "acme:Unlabelled": ("", "Something that nobody gave a name to"),
    }
    filing = Filing(
        "Acme",
        (),
        labels={tag: label for tag, (label, _) in terms.items() if label},
        documentation={tag: definition for tag, (_, definition) in terms.items()},
    )
    built = term_questions(filing)
    assert [(example.group, example.target) for example in built.examples] == [
        ("Robots", "Machines that work without people"),
        ("Library", "Films and series that may be shown for years"),
    ]
    assert built.examples[0].context == "Explain this XBRL term briefly in one sentence: Robots. Answer:"
    assert built.dropped == {
        "definition says no more than the label": 1,
        "definition of fewer than 5 words": 1,
        "label with different definitions": 2,
        "same label and definition again": 1,
        "no label in the linkbase": 1,
    }
