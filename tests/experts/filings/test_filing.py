"""Reading a small XBRL filing written here, with everything real ones contain."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.filing import read_filing
from finlora.experts.tasks.sources import build_task

INSTANCE = """<?xml version="1.0" encoding="utf-8"?>
<!-- a comment -->
<xbrl xmlns="http://www.xbrl.org/2003/instance" xmlns:link="http://www.xbrl.org/2003/linkbase"
  xmlns:gaap="http://fasb.org/us-gaap/2023" xmlns:dei="http://xbrl.sec.gov/dei/2023"
  xmlns:acme="http://acme.com/2023" xmlns:xbrldi="http://xbrl.org/2006/xbrldi"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xlink="http://www.w3.org/1999/xlink">
  <link:schemaRef xlink:href="acme.xsd" xlink:type="simple"/>
  <context id="year"><entity><identifier scheme="http://www.sec.gov/CIK">0000000042</identifier></entity>
    <period><startDate>2023-01-01</startDate><endDate>2023-12-31</endDate></period></context>
  <context id="end"><entity><identifier scheme="http://www.sec.gov/CIK">0000000042</identifier></entity>
    <period><instant> 2023-12-31 </instant></period></context>
  <context id="part"><entity><identifier scheme="http://www.sec.gov/CIK">0000000042</identifier><segment>
      <xbrldi:typedMember dimension="srt:RangeAxis"><acme:domain>one
        two</acme:domain></xbrldi:typedMember>
      <xbrldi:explicitMember dimension="srt:ProductAxis">us-gaap:ServiceMember</xbrldi:explicitMember>
    </segment></entity><period><instant>2023-12-31</instant></period></context>
  <unit id="u1"><measure>iso4217:USD</measure></unit>
  <unit id="u2"><divide><unitNumerator><measure>iso4217:USD</measure></unitNumerator>
    <unitDenominator><measure>shares</measure></unitDenominator></divide></unit>
  <dei:EntityRegistrantName contextRef="year">Acme
    Corp</dei:EntityRegistrantName>
  <gaap:Assets contextRef="end" unitRef="u1" decimals="-9">1000000000</gaap:Assets>
  <gaap:Assets contextRef="end" unitRef="u1" decimals="-6"> 1004000000 </gaap:Assets>
  <gaap:Assets contextRef="end" unitRef="u1" decimals="-9">1000000000</gaap:Assets>
  <gaap:Assets contextRef="part" unitRef="u1" decimals="-6">5000000</gaap:Assets>
  <gaap:Liabilities contextRef="end" unitRef="u1" decimals="-6">600000000</gaap:Liabilities>
  <gaap:Goodwill contextRef="end" unitRef="u1" xsi:nil="true"/>
  <gaap:StockholdersEquity contextRef="end" unitRef="u1" decimals="-6">404000000</gaap:StockholdersEquity>
  <gaap:CommonStockValue contextRef="end" unitRef="u1" decimals="INF">0</gaap:CommonStockValue>
  <gaap:EarningsPerShareBasic contextRef="year" unitRef="u2" decimals="2">-0.25</gaap:EarningsPerShareBasic>
  <gaap:PolicyTextBlock contextRef="year">&lt;p&gt;We count.&lt;/p&gt;</gaap:PolicyTextBlock>
  <acme:Robots contextRef="end" unitRef="u1" decimals="0">7</acme:Robots>
  <link:footnoteLink xlink:type="extended"/>
</xbrl>
"""
LABELS = """<linkbase xmlns="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink">
  <labelLink xlink:type="extended" xlink:role="http://www.xbrl.org/2003/role/link">
    <loc xlink:href="https://fasb.org/us-gaap-2023.xsd#us-gaap_Assets" xlink:label="loc1"/>
    <label xlink:label="lab1" xlink:role="http://www.xbrl.org/2003/role/terseLabel" xml:lang="en-US">A</label>
    <label xlink:label="lab1" xlink:role="http://www.xbrl.org/2003/role/label" xml:lang="en-US">Total
      assets</label>
    <label xlink:label="lab1" xlink:role="http://www.xbrl.org/2003/role/label" xml:lang="de">Aktiva</label>
    <labelArc xlink:from="loc1" xlink:to="lab1"/>
    <loc xlink:href="acme.xsd#acme_Robots_Own" xlink:label="loc2"/>
    <label xlink:label="lab2" xlink:role="http://www.xbrl.org/2003/role/label" xml:lang="en-US">Robots</label>
    <labelArc xlink:from="loc2" xlink:to="lab2" use="prohibited"/>
  </labelLink>
</linkbase>
"""
CALCULATIONS = """<linkbase xmlns="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink">
  <calculationLink xlink:type="extended" xlink:role="http://acme.com/role/BalanceSheet">
    <loc xlink:href="us-gaap-2023.xsd#us-gaap_StockholdersEquity" xlink:label="a"/>
    <loc xlink:href="us-gaap-2023.xsd#us-gaap_Assets" xlink:label="b"/>
    <loc xlink:href="us-gaap-2023.xsd#us-gaap_Liabilities" xlink:label="c"/>
    <calculationArc xlink:from="a" xlink:to="b" weight="1.0"/>
    <calculationArc xlink:from="a" xlink:to="c" weight="-1.0"/>
  </calculationLink>
</linkbase>
"""


@pytest.fixture
def folder(tmp_path):
    """The folder of a filing."""
    for name, text in (("acme_htm", INSTANCE), ("acme_lab", LABELS), ("acme_cal", CALCULATIONS)):
        (tmp_path / f"{name}.xml").write_text(text, encoding="utf-8")
    return tmp_path


def test_facts_carry_context_unit_and_precision(folder):
    """Prefixes are the usual ones whatever the document calls its namespaces."""
    filing = read_filing(folder)
    by_key = {(fact.tag, fact.context.id): fact for fact in filing.facts}
    assert len(by_key) == len(filing.facts) == 10
    assets = by_key["us-gaap:Assets", "end"]
    assert (assets.value, assets.unit, assets.decimals) == ("1004000000", "USD", "-6")
    assert (assets.context.start, assets.context.end, assets.context.entity) == (
        None,
        "2023-12-31",
        "0000000042",
    )
    earnings = by_key["us-gaap:EarningsPerShareBasic", "year"]
    assert (earnings.value, earnings.unit) == ("-0.25", "USD/shares")
    assert (earnings.context.start, earnings.context.end) == ("2023-01-01", "2023-12-31")
    assert by_key["us-gaap:Goodwill", "end"].value is None
    assert by_key["us-gaap:PolicyTextBlock", "year"].unit is None
    assert by_key["acme:Robots", "end"].value == "7"


def test_dimensions_are_explicit_or_typed(folder):
    """Sorted by axis, with the text of a typed member."""
    (part,) = (fact.context for fact in read_filing(folder).facts if fact.context.id == "part")
    assert part.dimensions == (("srt:ProductAxis", "us-gaap:ServiceMember"), ("srt:RangeAxis", "one two"))


def test_company_labels_and_calculations(folder):
    """Standard English labels only, and no prohibited arc."""
    filing = read_filing(folder)
    assert filing.company == "Acme Corp"
    assert filing.labels == {"us-gaap:Assets": "Total assets"}
    assert [(arc.parent, arc.child, arc.weight) for arc in filing.calculations] == [
        ("us-gaap:StockholdersEquity", "us-gaap:Assets", 1.0),
        ("us-gaap:StockholdersEquity", "us-gaap:Liabilities", -1.0),
    ]


def test_linkbases_and_name_may_be_absent(folder):
    """Then there are no labels, and the company is its CIK."""
    for name in ("acme_lab", "acme_cal"):
        (folder / f"{name}.xml").unlink()
    text = INSTANCE.replace("EntityRegistrantName", "SecurityExchangeName")
    (folder / "acme_htm.xml").write_text(text, encoding="utf-8")
    filing = read_filing(folder)
    assert (filing.company, filing.labels, filing.calculations) == ("0000000042", {}, ())


def test_a_filing_folder_is_a_source_of_examples(folder):
    """The asked fact is the exact one, not the rounded one."""
    (example,) = build_task("xbrl_value", folder)
    assert example.target == "1004000000"
    assert "acme:Robots" not in example.context
    ratios = {example.group for example in build_task("xbrl_formula", folder)}
    assert ratios >= {
        f"Acme Corp: {name}" for name in ("Debt Ratio", "Debt to Equity Ratio", "Equity Multiplier")
    }
    (folder / "acme_lab.xml").unlink()
    with pytest.raises(FinLoraError, match="holds nothing that xbrl_value asks"):
        build_task("xbrl_value", folder)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text[: len(text) // 2], "not well-formed"),
        (lambda text: "", "not well-formed"),
        (lambda text: text.replace('contextRef="end"', 'contextRef="gone"', 1), "names the context 'gone'"),
        (lambda text: text.replace('unitRef="u1"', 'unitRef="gone"', 1), "names the unit 'gone'"),
        (lambda text: text.replace("contextRef", "other"), "has no facts"),
        (lambda text: "<html/>", "found none"),
    ],
)
def test_a_damaged_instance_is_named(folder, change, fault):
    """One sentence with the file and the fault."""
    (folder / "acme_htm.xml").write_text(change(INSTANCE), encoding="utf-8")
    with pytest.raises(FinLoraError, match=fault) as error:
        read_filing(folder)
    assert str(folder) in str(error.value)


def test_two_instances_or_nothing_are_refused(folder):
    """A folder is one filing."""
    (folder / "other.xml").write_text(INSTANCE, encoding="utf-8")
    with pytest.raises(FinLoraError, match=r"found acme_htm\.xml, other\.xml"):
        read_filing(folder)
    with pytest.raises(FinLoraError, match="does not exist"):
        read_filing(folder / "absent.xml")


def test_entities_are_not_expanded(folder, tmp_path):
    """A filing cannot read files of the machine it is read on."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    doctype = f'<!DOCTYPE xbrl [<!ENTITY x SYSTEM "{secret.as_uri()}">]>\n<xbrl xmlns='
    text = INSTANCE.replace("<xbrl xmlns=", doctype, 1).replace(">7<", ">&x;<")
    (folder / "acme_htm.xml").write_text(text, encoding="utf-8")
    with pytest.raises(FinLoraError, match=r"acme_htm\.xml, line \d+: .* declares entities"):
        read_filing(folder)
