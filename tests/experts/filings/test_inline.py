"""A small inline XBRL document written here, with everything real ones contain."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings import filing as filing_module
from finlora.experts.filings import inline
from finlora.experts.filings.filing import read_filing

pytestmark = pytest.mark.filterwarnings("ignore:.*comes without")

START = """<?xml version="1.0" encoding="utf-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:ix="http://www.xbrl.org/2013/inlineXBRL"
  xmlns:ixt="http://www.xbrl.org/inlineXBRL/transformation/2020-02-12"
  xmlns:sec="http://www.sec.gov/inlineXBRL/transformation/2015-08-31"
  xmlns:xbrli="http://www.xbrl.org/2003/instance" xmlns:xbrldi="http://xbrl.org/2006/xbrldi"
  xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink"
  xmlns:gaap="http://fasb.org/us-gaap/2024" xmlns:dei="http://xbrl.sec.gov/dei/2024"
  xmlns:acme="http://acme.com/2024" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<head><title>acme-20241231</title></head><body>
"""
HEADER = """<div style="display:none"><ix:header><ix:hidden>
  <ix:nonNumeric contextRef="year" name="dei:EntityCentralIndexKey">0000000042</ix:nonNumeric>
  <ix:nonNumeric contextRef="year" name="dei:EntityRegistrantName">Acme Corp</ix:nonNumeric>
  </ix:hidden>
  <ix:references><link:schemaRef xlink:type="simple" xlink:href="acme-20241231.xsd"/></ix:references>
  <ix:resources>
    <xbrli:context id="year"><xbrli:entity><xbrli:identifier scheme="http://www.sec.gov/CIK">42</xbrli:identifier>
      </xbrli:entity><xbrli:period><xbrli:startDate>2024-01-01</xbrli:startDate>
      <xbrli:endDate>2025-01-01T00:00:00</xbrli:endDate></xbrli:period></xbrli:context>
    <xbrli:context id="part"><xbrli:entity><xbrli:identifier scheme="http://www.sec.gov/CIK">42</xbrli:identifier>
      <xbrli:segment><xbrldi:explicitMember dimension="gaap:ProductAxis">gaap:ServiceMember
      </xbrldi:explicitMember></xbrli:segment></xbrli:entity>
      <xbrli:period><xbrli:forever/></xbrli:period></xbrli:context>
    <xbrli:unit id="usd"><xbrli:measure>iso4217:USD</xbrli:measure></xbrli:unit>
    <xbrli:unit id="each"><xbrli:divide><xbrli:unitNumerator><xbrli:measure>iso4217:USD</xbrli:measure>
      </xbrli:unitNumerator><xbrli:unitDenominator><xbrli:measure>xbrli:shares</xbrli:measure>
      </xbrli:unitDenominator></xbrli:divide></xbrli:unit>
  </ix:resources></ix:header></div>
"""
END = "</body></html>\n"


def document(tmp_path, body, *, header=HEADER, name="acme.htm"):
    """The path of a document with this body."""
    path = tmp_path / name
    path.write_text(START + header + body + END, encoding="utf-8")
    return path


def number(text, attributes="", name="gaap:Assets", context="year", unit="usd"):
    """A tagged number."""
    return (
        f'<ix:nonFraction name="{name}" contextRef="{context}" unitRef="{unit}" decimals="-6" {attributes}>'
        f"{text}</ix:nonFraction>"
    )


def values(path):
    """Values by tag, without those of the header."""
    return {fact.tag: fact.value for fact in read_filing(path).facts if not fact.tag.startswith("dei:")}


@pytest.mark.parametrize(
    ("text", "attributes", "value"),
    [
        ("1,234.5", 'format="ixt:num-dot-decimal" scale="6"', "1234500000"),
        ("1.234,5", 'format="ixt:num-comma-decimal" scale="3" sign="-"', "-1234500"),
        ("\u2014", 'format="ixt:fixed-zero" scale="6" sign="-"', "0"),
        ("5.75", 'scale="-2"', "0.0575"),
        ("three", 'format="sec:numwordsen"', "3"),
        ("12<ix:exclude>(a)</ix:exclude>", "", "12"),
        ("<b>1</b>2", "", "12"),
        ("", 'xsi:nil="true"', None),
    ],
)
def test_a_number_is_what_its_text_stands_for(tmp_path, text, attributes, value):
    """Transformed, then scaled, then signed."""
    assert values(document(tmp_path, f"<p>{number(text, attributes)}</p>")) == {"us-gaap:Assets": value}


def test_contexts_units_and_hidden_facts(tmp_path):
    """A period that ends at midnight ends the day before."""
    path = document(tmp_path, number("1") + number("2", name="acme:Robots", context="part", unit="each"))
    filing = read_filing(path)
    assert filing.company == "Acme Corp"
    assert [context.id for context in filing.contexts] == ["year", "part"]
    assets, robots = (fact for fact in filing.facts if fact.unit)
    assert (assets.context.start, assets.context.end, assets.unit) == ("2024-01-01", "2024-12-31", "USD")
    assert (robots.tag, robots.unit, robots.decimals) == ("acme:Robots", "USD/shares", "-6")
    assert robots.context.dimensions == (("us-gaap:ProductAxis", "us-gaap:ServiceMember"),)
    assert (robots.context.start, robots.context.end) == (None, "forever")
    assert {fact.value for fact in filing.facts if fact.tag == "dei:EntityCentralIndexKey"} == {"0000000042"}


def test_text_goes_on_elsewhere_and_nested_facts_are_facts(tmp_path):
    """In two steps, with a number inside that counts for itself and as text."""
    body = f"""
    <ix:nonNumeric name="gaap:Policy" contextRef="year" continuedAt="a" escape="true"><p>We own {number("7")}
      robots &amp; more.</p></ix:nonNumeric><hr/>
    <ix:continuation id="b"><p>End.</p></ix:continuation>
    <ix:continuation id="a" continuedAt="b"><p>And<ix:exclude> page 5</ix:exclude>
      <ix:nonNumeric name="gaap:Plain" contextRef="year">two<br/>words</ix:nonNumeric>.</p>
    </ix:continuation>"""
    found = values(document(tmp_path, body))
    assert found["us-gaap:Assets"] == "7"
    assert found["us-gaap:Plain"] == "twowords"
    assert " ".join(found["us-gaap:Policy"].split()) == (
        "<p>We own 7 robots &amp; more.</p><p>And two<br/>words.</p> <p>End.</p>"
    )


def test_dates_durations_and_unknown_formats_of_text(tmp_path):
    """Text in a format that is not known stays as written, with a warning."""
    body = """
    <ix:nonNumeric name="dei:PeriodEnd" contextRef="year" format="ixt:date-monthname-day-year-en">May
      <b>1, 2024</b></ix:nonNumeric>
    <ix:nonNumeric name="gaap:Term" contextRef="year" format="sec:durwordsen">five-year</ix:nonNumeric>
    <ix:nonNumeric name="dei:Country" contextRef="year" format="sec:edgarprovcountryen">Upper
      Utopia</ix:nonNumeric>"""
    path = document(tmp_path, body)
    with pytest.warns(UserWarning, match=r"acme\.htm, line \d+: dei:Country stays as written"):
        facts = {fact.tag: fact.value for fact in read_filing(path).facts}
    assert (facts["dei:PeriodEnd"], facts["us-gaap:Term"]) == ("2024-05-01", "P5Y")
    assert facts["dei:Country"] == "Upper Utopia"


def test_nested_numbers_fractions_tuples_and_targets(tmp_path):
    """One text, two facts; facts of another target belong to another instance."""
    inner = number("5", name="gaap:Inner")
    body = f"""{number(inner, 'scale="3"', name="gaap:Outer")}
    <ix:fraction name="acme:Ratio" contextRef="year" unitRef="usd"><ix:numerator>1</ix:numerator>/
      <ix:denominator format="sec:numwordsen">three</ix:denominator></ix:fraction>
    <ix:tuple name="acme:Group">{number("6", name="acme:Member")}</ix:tuple>
    {number("8", 'target="other"', name="acme:Other")}"""
    assert values(document(tmp_path, body)) == {
        "us-gaap:Outer": "5000",
        "us-gaap:Inner": "5",
        "acme:Ratio": "1/3",
        "acme:Member": "6",
    }


def test_duplicates_are_listed_and_the_most_precise_stays(tmp_path):
    """Rounding is a conflict of texts, not an inconsistency."""
    rounded = number("1.2", 'scale="9"').replace('"-6"', '"-8"')
    wrong = number("9", 'scale="9"').replace('"-6"', '"-9"')
    exact = number("1,234", 'scale="6" format="ixt:num-dot-decimal"')
    filing = read_filing(document(tmp_path, rounded + exact + exact + wrong))
    (kept,) = (fact for fact in filing.facts if fact.unit)
    assert kept.value == "1234000000"
    assert [(one.other.value, one.conflicting, one.inconsistent) for one in filing.duplicates] == [
        ("1200000000", True, False),
        ("1234000000", False, False),
        ("9000000000", True, True),
    ]
    assert filing.conflicts == (kept,)
    assert filing.reported == len(filing.facts) + 3


def test_several_documents_of_a_folder_are_one_filing(tmp_path):
    """Contexts and continued text of one, facts of the other; pages without tags are left alone."""
    document(tmp_path, '<ix:continuation id="a">more</ix:continuation>', name="first.htm")
    text = '<ix:nonNumeric name="gaap:Policy" contextRef="year" continuedAt="a">one </ix:nonNumeric>'
    document(tmp_path, text + number("3"), header="", name="second.htm")
    (tmp_path / "R1.htm").write_text("<html><br>", encoding="utf-8")
    assert values(tmp_path) == {"us-gaap:Policy": "one more", "us-gaap:Assets": "3"}


def test_linkbases_inside_the_schema_of_a_single_document_are_read(tmp_path):
    """The schema is the one that the document refers to."""
    schema = """<xsd:schema xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xlink="http://www.w3.org/1999/xlink"
      xmlns:link="http://www.xbrl.org/2003/linkbase"><xsd:annotation><xsd:appinfo><link:linkbase><link:labelLink>
      <link:loc xlink:href="us-gaap-2024.xsd#us-gaap_Assets" xlink:label="a"/>
      <link:label xlink:label="l" xlink:role="http://www.xbrl.org/2003/role/label">All assets</link:label>
      <link:label xlink:label="d" xlink:role="http://www.xbrl.org/2003/role/documentation">What it
        owns.</link:label>
      <link:labelArc xlink:from="a" xlink:to="l"/><link:labelArc xlink:from="a" xlink:to="d"/>
      </link:labelLink></link:linkbase></xsd:appinfo></xsd:annotation></xsd:schema>"""
    (tmp_path / "acme-20241231.xsd").write_text(schema, encoding="utf-8")
    (tmp_path / "other-20241231.xsd").write_text(schema.replace("All assets", "Other"), encoding="utf-8")
    filing = read_filing(document(tmp_path, number("1")))
    assert filing.labels == {"us-gaap:Assets": "All assets"}
    assert filing.documentation == {"us-gaap:Assets": "What it owns."}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (number("1", context="gone"), "names the context 'gone'"),
        (number("1", unit="gone"), "names the unit 'gone'"),
        (number("1").replace('contextRef="year"', ""), "names no context"),
        (number("1").replace('unitRef="usd"', ""), "names no unit"),
        (number("1").replace('unitRef="usd" decimals="-6"', ""), "names no unit"),
        (
            number("many", 'format="ixt:num-dot-decimal"'),
            "us-gaap:Assets cannot be read: 'many' is not a number",
        ),
        (number("1", 'format="ixt:unheard"'), "the transformation 'unheard' is not known"),
        (number("1", 'scale="999999999"'), "not a number that a company reports"),
        (number("1", 'scale="x"'), "cannot be read"),
        ('<ix:fraction name="a:b" contextRef="year" unitRef="usd">1</ix:fraction>', "lacks its numerator"),
        (
            '<ix:nonNumeric name="a:b" contextRef="year" continuedAt="z">x</ix:nonNumeric>',
            "goes on at 'z', where the filing has nothing",
        ),
        (
            '<ix:nonNumeric name="a:b" contextRef="year" continuedAt="z">x</ix:nonNumeric>'
            '<ix:continuation id="z" continuedAt="z">y</ix:continuation>',
            "goes on at 'z', in a circle",
        ),
    ],
)
def test_a_damaged_document_is_named_with_the_line(tmp_path, body, fault):
    """One sentence with file, line and fault."""
    path = document(tmp_path, body)
    with pytest.raises(FinLoraError, match=rf"acme\.htm, line \d+: .*{fault}"):
        read_filing(path)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("<xbrli:forever/>", "", "the context 'part' has no period"),
        ("2024-01-01", "2024-13-01", "'2024-13-01' is not a date"),
        ('id="part"', 'id="year"', "a second, different context is called 'year'"),
    ],
)
def test_a_damaged_context_is_named_with_the_line(tmp_path, old, new, fault):
    """Whether a fact uses it or not."""
    path = document(tmp_path, number("1"), header=HEADER.replace(old, new))
    with pytest.raises(FinLoraError, match=rf"acme\.htm, line \d+: {fault}"):
        read_filing(path)


def test_nested_text_cannot_fill_the_memory(tmp_path, monkeypatch):
    """Every level of nesting repeats the text inside; so does every fact that goes on at the same place."""
    monkeypatch.setattr(inline, "MAX_TEXT", 1000)
    text = "x" * 100
    for _ in range(20):
        text = f'<ix:nonNumeric name="gaap:Policy" contextRef="year">{text}</ix:nonNumeric>'
    with pytest.raises(FinLoraError, match="more than 1,000 characters"):
        read_filing(document(tmp_path, text))


def test_too_many_facts_are_refused(tmp_path, monkeypatch):
    """The limit is far above what companies report."""
    monkeypatch.setattr(filing_module, "MAX_FACTS", 3)
    with pytest.raises(FinLoraError, match="more than 3 facts"):
        read_filing(document(tmp_path, number("1") * 2))


def test_a_page_without_tags_is_no_filing(tmp_path):
    """Neither as a file nor as a folder."""
    path = document(tmp_path, "<p>Nothing.</p>", header="")
    with pytest.raises(FinLoraError, match="has no facts"):
        read_filing(path)
    with pytest.raises(FinLoraError, match=r"must hold one XBRL instance .* found none"):
        read_filing(tmp_path)
