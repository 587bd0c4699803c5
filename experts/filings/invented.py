"""Invented companies whose statements add up, so that every embedded task has a checkable answer.

assets = liabilities + equity, gross profit = revenues - cost, each total is the sum of its parts (parts
that a company does not report are zero), and earnings per share follow from net income and shares.
Companies are drawn from a seed; the splits draw from separate name lists, so no company is in two of them.
"""

import random
from dataclasses import dataclass

from .concepts import CONCEPTS
from .filing import Filing
from .model import Context, Fact

BEFORE_TAXES = "IncomeLossFromContinuingOperationsBeforeIncomeTaxesExtraordinaryItemsNoncontrollingInterest"
SPLITS = ("train", "validation", "test")
_STARTS = (
    "Al Bar Cor Del Em Far Gran Hol In Jas Kel Lum Mor Nor Or Pel Quan Ros Sel Tor Ul Ven Wes Xan Yor Zel"
)
_MIDDLES = "a e i o an en in on ar er or al el il"
_ENDS = {
    "train": "dale ford mark rix sen ton vane worth",
    "validation": "bury gate",
    "test": "field lake mont stead",
}
_KINDS = ("Inc", "Corp", "Ltd", "Group", "Holdings", "Systems", "Energy", "Foods", "Pharma", "Bank")


@dataclass(frozen=True)
class Company:
    """One invented company and its reported facts of one fiscal year."""

    name: str
    year: int
    facts: dict[str, str]
    """Values by us-gaap name, as XBRL writes them: whole units, or two decimals for amounts a share."""


def company_name(split: str, random_state: random.Random) -> str:
    """Return a name that only this split can draw.

    Example:
        >>> company_name("test", random.Random(0))
        'Morelstead Inc'
    """
    start, middle = random_state.choice(_STARTS.split()), random_state.choice(_MIDDLES.split())
    end = random_state.choice(_ENDS[split].split())
    return f"{start}{middle}{end} {random_state.choice(_KINDS)}"


def invent_company(split: str, random_state: random.Random) -> Company:
    """Draw a company with all its statements.

    Args:
        split: One of `SPLITS`; it decides the names that can be drawn.
        random_state: Source of every choice.
    """
    draw = _Draw(random_state)
    amounts = _income(draw) | _assets(draw)
    amounts |= _funding(draw, amounts) | _cash_flows(draw, amounts)
    shares = draw.amount(0.2, 2.0)
    facts = {tag: str(value * draw.unit) for tag, value in amounts.items() if value}
    facts["WeightedAverageNumberOfSharesOutstandingBasic"] = str(shares * draw.unit)
    facts["CommonStockSharesOutstanding"] = str((shares + draw.amount(0.01, 0.05)) * draw.unit)
    facts["EarningsPerShareBasic"] = f"{amounts['NetIncomeLoss'] / shares:.2f}"
    facts["EarningsPerShareDiluted"] = f"{amounts['NetIncomeLoss'] / (shares * 1.02):.2f}"
    return Company(company_name(split, random_state), random_state.randint(2012, 2024), facts)


def as_filing(company: Company) -> Filing:
    """Return the company's facts as a filing: balances at the year's end, flows over the year."""
    end = f"{company.year}-12-31"
    contexts = {
        "instant": Context("balance", company.name, None, end),
        "duration": Context("year", company.name, f"{company.year}-01-01", end),
    }
    facts = tuple(
        Fact(f"us-gaap:{tag}", value, contexts[CONCEPTS[tag].period], "USD", "INF")
        for tag, value in company.facts.items()
    )
    return Filing(company.name, facts, {f"us-gaap:{tag}": concept.label for tag, concept in CONCEPTS.items()})


class _Draw:
    """Draws amounts around the size of one company, in its reporting unit."""

    def __init__(self, random_state: random.Random) -> None:
        self.random = random_state
        self.size = 10 ** random_state.uniform(3.5, 6.0)
        self.unit = random_state.choice((1, 1000))

    def amount(self, low: float, high: float) -> int:
        """Return a whole amount between `low` and `high` times the size of the company, at least 1."""
        return max(1, round(self.size * self.random.uniform(low, high)))

    def sometimes(self, low: float, high: float) -> int:
        """Return an amount, or 0 for a line that the company does not report."""
        return self.amount(low, high) if self.random.random() < 0.75 else 0


def _income(draw: _Draw) -> dict[str, int]:
    revenues, cost = draw.amount(1.2, 2.0), draw.amount(0.4, 0.9)
    expenses = {
        "ResearchAndDevelopmentExpense": draw.sometimes(0.02, 0.1),
        "SellingGeneralAndAdministrativeExpense": draw.amount(0.05, 0.2),
        "MarketingExpense": draw.sometimes(0.01, 0.06),
        "RestructuringCharges": draw.sometimes(0.01, 0.05),
        "GoodwillImpairmentLoss": draw.sometimes(0.01, 0.05),
    }
    operating_expenses = sum(expenses.values())
    operating_income = revenues - cost - operating_expenses
    interest_expense, interest_income = draw.amount(0.01, 0.08), draw.sometimes(0.01, 0.04)
    before_taxes = operating_income - interest_expense + interest_income
    taxes = round(before_taxes * draw.random.uniform(0.1, 0.3))
    return expenses | {
        "Revenues": revenues,
        "CostOfRevenue": cost,
        "GrossProfit": revenues - cost,
        "OperatingExpenses": operating_expenses,
        "OperatingIncomeLoss": operating_income,
        "InterestExpense": interest_expense,
        "InvestmentIncomeInterest": interest_income,
        BEFORE_TAXES: before_taxes,
        "IncomeTaxExpenseBenefit": taxes,
        "NetIncomeLoss": before_taxes - taxes,
    }


def _assets(draw: _Draw) -> dict[str, int]:
    current = {
        "CashAndCashEquivalentsAtCarryingValue": draw.amount(0.1, 0.5),
        "ShortTermInvestments": draw.sometimes(0.05, 0.3),
        "AccountsReceivableNetCurrent": draw.amount(0.1, 0.4),
        "InventoryNet": draw.amount(0.1, 0.4),
        "PrepaidExpenseCurrent": draw.sometimes(0.01, 0.1),
        "OtherAssetsCurrent": draw.sometimes(0.01, 0.1),
    }
    noncurrent = {
        "PropertyPlantAndEquipmentNet": draw.amount(0.2, 0.9),
        "OperatingLeaseRightOfUseAsset": draw.sometimes(0.05, 0.2),
        "Goodwill": draw.amount(0.1, 0.6),
        "IntangibleAssetsNetExcludingGoodwill": draw.sometimes(0.05, 0.3),
        "LongTermInvestments": draw.sometimes(0.05, 0.3),
        "DeferredIncomeTaxAssetsNet": draw.sometimes(0.01, 0.1),
        "OtherAssetsNoncurrent": draw.sometimes(0.01, 0.1),
    }
    total_current = sum(current.values())
    total = total_current + sum(noncurrent.values())
    return current | noncurrent | {"AssetsCurrent": total_current, "Assets": total}


def _funding(draw: _Draw, amounts: dict[str, int]) -> dict[str, int]:
    current = {
        "AccountsPayableCurrent": draw.amount(0.05, 0.2),
        "AccruedLiabilitiesCurrent": draw.sometimes(0.02, 0.1),
        "ContractWithCustomerLiabilityCurrent": draw.sometimes(0.02, 0.1),
        "LongTermDebtCurrent": draw.sometimes(0.01, 0.08),
        "EmployeeRelatedLiabilitiesCurrent": draw.sometimes(0.01, 0.05),
        "OperatingLeaseLiabilityCurrent": draw.sometimes(0.01, 0.04),
        "OtherLiabilitiesCurrent": draw.sometimes(0.01, 0.05),
    }
    noncurrent = {
        "LongTermDebtNoncurrent": draw.amount(0.1, 0.4),
        "OperatingLeaseLiabilityNoncurrent": draw.sometimes(0.02, 0.1),
        "DeferredIncomeTaxLiabilitiesNet": draw.sometimes(0.01, 0.08),
        "OtherLiabilitiesNoncurrent": draw.sometimes(0.01, 0.06),
    }
    total_current, assets = sum(current.values()), amounts["Assets"]
    liabilities = total_current + sum(noncurrent.values())
    equity = assets - liabilities
    stock, paid_in = draw.amount(0.001, 0.01), draw.amount(0.02, 0.1)
    treasury, other_loss = draw.sometimes(0.01, 0.05), -draw.sometimes(0.005, 0.02)
    return (
        current
        | noncurrent
        | {
            "LiabilitiesCurrent": total_current,
            "Liabilities": liabilities,
            "CommonStockValue": stock,
            "AdditionalPaidInCapital": paid_in,
            "TreasuryStockValue": treasury,
            "AccumulatedOtherComprehensiveIncomeLossNetOfTax": other_loss,
            "RetainedEarningsAccumulatedDeficit": equity - stock - paid_in + treasury - other_loss,
            "StockholdersEquity": equity,
            "LiabilitiesAndStockholdersEquity": assets,
        }
    )


def _cash_flows(draw: _Draw, amounts: dict[str, int]) -> dict[str, int]:
    depreciation, shares_given = draw.amount(0.03, 0.1), draw.sometimes(0.01, 0.05)
    operating = amounts["NetIncomeLoss"] + depreciation + shares_given
    capital, businesses = draw.amount(0.05, 0.15), draw.sometimes(0.01, 0.1)
    dividends, repurchases = draw.amount(0.01, 0.08), draw.sometimes(0.02, 0.1)
    borrowed, repaid = draw.sometimes(0.02, 0.1), draw.sometimes(0.02, 0.1)
    return {
        "DepreciationDepletionAndAmortization": depreciation,
        "AmortizationOfIntangibleAssets": round(depreciation * draw.random.uniform(0.1, 0.4)),
        "ShareBasedCompensation": shares_given,
        "NetCashProvidedByUsedInOperatingActivities": operating,
        "PaymentsToAcquirePropertyPlantAndEquipment": capital,
        "PaymentsToAcquireBusinessesNetOfCashAcquired": businesses,
        "NetCashProvidedByUsedInInvestingActivities": -capital - businesses,
        "PaymentsOfDividends": dividends,
        "PaymentsForRepurchaseOfCommonStock": repurchases,
        "StockRepurchasedDuringPeriodValue": repurchases and repurchases + draw.amount(0.001, 0.01),
        "ProceedsFromIssuanceOfLongTermDebt": borrowed,
        "RepaymentsOfLongTermDebt": repaid,
        "NetCashProvidedByUsedInFinancingActivities": borrowed - repaid - dividends - repurchases,
        "InterestPaidNet": amounts["InterestExpense"] + draw.amount(0.001, 0.005),
        "IncomeTaxesPaidNet": draw.amount(0.01, 0.06),
        "OperatingLeaseCost": draw.sometimes(0.01, 0.04),
        "AllowanceForDoubtfulAccountsReceivableCurrent": draw.sometimes(0.001, 0.02),
        "UnrecognizedTaxBenefits": draw.sometimes(0.005, 0.03),
        "LineOfCreditFacilityMaximumBorrowingCapacity": draw.sometimes(0.05, 0.3),
        "DebtInstrumentFaceAmount": draw.sometimes(0.05, 0.3),
    }
