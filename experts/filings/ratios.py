"""Financial ratios as formulas over us-gaap tags, with the tags that companies use for the same line item."""

import re
from collections.abc import Collection
from dataclasses import dataclass

LINE_ITEMS = {
    "revenue": (
        "Revenues",
        "RevenueFromContractWithCustomerExcludingAssessedTax",
        "RevenueFromContractWithCustomerIncludingAssessedTax",
        "SalesRevenueNet",
    ),
    "net_income": ("NetIncomeLoss", "ProfitLoss"),
    "gross_profit": ("GrossProfit",),
    "operating_income": ("OperatingIncomeLoss",),
    "research": ("ResearchAndDevelopmentExpense",),
    "operating_cash_flow": (
        "NetCashProvidedByUsedInOperatingActivities",
        "NetCashProvidedByUsedInOperatingActivitiesContinuingOperations",
    ),
    "tax": ("IncomeTaxExpenseBenefit",),
    "income_before_tax": (
        "IncomeLossFromContinuingOperationsBeforeIncomeTaxesExtraordinaryItemsNoncontrollingInterest",
        "IncomeLossFromContinuingOperationsBeforeIncomeTaxesMinorityInterestAndIncomeLossFromEquityMethodInvestments",
        "IncomeLossFromContinuingOperationsBeforeIncomeTaxes",
    ),
    "cash": ("CashAndCashEquivalentsAtCarryingValue",),
    "current_assets": ("AssetsCurrent",),
    "inventory": ("InventoryNet", "InventoryFinishedGoodsNetOfReserves"),
    "assets": ("Assets",),
    "current_liabilities": ("LiabilitiesCurrent",),
    "liabilities": ("Liabilities",),
    "equity": (
        "StockholdersEquity",
        "StockholdersEquityIncludingPortionAttributableToNoncontrollingInterest",
    ),
}
"""Tags (without prefix) by line item, the preferred one first."""

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Ratio:
    """A ratio; ``formula`` names line items in braces, such as ``{assets} / {equity}``."""

    name: str
    formula: str

    @property
    def line_items(self) -> tuple[str, ...]:
        """Line items of the formula, in order."""
        return tuple(_SLOT.findall(self.formula))

    def with_tags(self, available: Collection[str]) -> str | None:
        """The formula over those tags (without prefix) that are available; None when one is missing."""
        tags = {}
        for item in self.line_items:
            present = [tag for tag in LINE_ITEMS[item] if tag in available]
            if not present:
                return None
            tags[item] = f"us-gaap:{present[0]}"
        return _SLOT.sub(lambda match: tags[match[1]], self.formula)

    @property
    def competing_tags(self) -> frozenset[str]:
        """Every tag that could stand in the formula; shown beside the chosen one it would be ambiguous."""
        return frozenset(tag for item in self.line_items for tag in LINE_ITEMS[item])


RATIOS = (
    Ratio("Net Profit Margin", "({net_income} / {revenue}) * 100"),
    Ratio("Gross Profit Margin", "({gross_profit} / {revenue}) * 100"),
    Ratio("Operating Profit Margin", "({operating_income} / {revenue}) * 100"),
    Ratio("Cash Flow Margin", "({operating_cash_flow} / {revenue}) * 100"),
    Ratio("Research Intensity", "({research} / {revenue}) * 100"),
    Ratio("Effective Tax Rate", "({tax} / {income_before_tax}) * 100"),
    Ratio("Return on Assets", "({net_income} / {assets}) * 100"),
    Ratio("Return on Equity", "({net_income} / {equity}) * 100"),
    Ratio("Asset Turnover", "{revenue} / {assets}"),
    Ratio("Current Ratio", "{current_assets} / {current_liabilities}"),
    Ratio("Quick Ratio", "({current_assets} - {inventory}) / {current_liabilities}"),
    Ratio("Cash Ratio", "{cash} / {current_liabilities}"),
    Ratio("Debt Ratio", "{liabilities} / {assets}"),
    Ratio("Debt to Equity Ratio", "{liabilities} / {equity}"),
    Ratio("Equity Multiplier", "{assets} / {equity}"),
)
