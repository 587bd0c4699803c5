"""Financial ratios as formulas over us-gaap tags, with the tags that companies use for the same line item.

Balances are those at the end of the period, not averages; nothing is annualized.
"""

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
    "cost_of_revenue": ("CostOfRevenue", "CostOfGoodsAndServicesSold", "CostOfGoodsSold"),
    "operating_expenses": ("OperatingExpenses",),
    "selling_general": ("SellingGeneralAndAdministrativeExpense",),
    "marketing": ("SellingAndMarketingExpense", "MarketingExpense"),
    "administration": ("GeneralAndAdministrativeExpense",),
    "interest_expense": ("InterestExpense", "InterestExpenseNonoperating", "InterestExpenseDebt"),
    "depreciation": (
        "DepreciationDepletionAndAmortization",
        "DepreciationAmortizationAndAccretionNet",
        "DepreciationAndAmortization",
    ),
    "share_compensation": ("ShareBasedCompensation",),
    "capital_expenditure": (
        "PaymentsToAcquirePropertyPlantAndEquipment",
        "PaymentsToAcquireProductiveAssets",
    ),
    "dividends": ("PaymentsOfDividends", "PaymentsOfDividendsCommonStock"),
    "repurchases": ("PaymentsForRepurchaseOfCommonStock",),
    "receivables": ("AccountsReceivableNetCurrent", "ReceivablesNetCurrent"),
    "payables": ("AccountsPayableCurrent", "AccountsPayableTradeCurrent"),
    "long_term_debt": ("LongTermDebtNoncurrent", "LongTermDebt"),
    "property": ("PropertyPlantAndEquipmentNet",),
    "goodwill": ("Goodwill",),
    "retained_earnings": ("RetainedEarningsAccumulatedDeficit",),
    "shares_outstanding": ("CommonStockSharesOutstanding",),
    "average_shares": ("WeightedAverageNumberOfSharesOutstandingBasic",),
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
"""The ratios of invented companies, on which the embedded base was pretrained; they never change."""

FURTHER_RATIOS = (
    Ratio("Pretax Profit Margin", "({income_before_tax} / {revenue}) * 100"),
    Ratio("Cost of Revenue Ratio", "({cost_of_revenue} / {revenue}) * 100"),
    Ratio("Operating Expense Ratio", "({operating_expenses} / {revenue}) * 100"),
    Ratio("Selling, General and Administrative Expense Ratio", "({selling_general} / {revenue}) * 100"),
    Ratio("Marketing Expense Ratio", "({marketing} / {revenue}) * 100"),
    Ratio("General and Administrative Expense Ratio", "({administration} / {revenue}) * 100"),
    Ratio("Share-Based Compensation Ratio", "({share_compensation} / {revenue}) * 100"),
    Ratio("EBITDA Margin", "(({operating_income} + {depreciation}) / {revenue}) * 100"),
    Ratio("Capital Intensity", "({capital_expenditure} / {revenue}) * 100"),
    Ratio("Free Cash Flow Margin", "(({operating_cash_flow} - {capital_expenditure}) / {revenue}) * 100"),
    Ratio("Capital Expenditure Coverage Ratio", "{operating_cash_flow} / {capital_expenditure}"),
    Ratio("Cash Conversion Ratio", "{operating_cash_flow} / {net_income}"),
    Ratio("Operating Cash Flow Ratio", "{operating_cash_flow} / {current_liabilities}"),
    Ratio("Cash Flow to Debt Ratio", "{operating_cash_flow} / {liabilities}"),
    Ratio("Interest Coverage Ratio", "{operating_income} / {interest_expense}"),
    Ratio("Tax Burden Ratio", "{net_income} / {income_before_tax}"),
    Ratio("Interest Burden Ratio", "{income_before_tax} / {operating_income}"),
    Ratio("Dividend Payout Ratio", "({dividends} / {net_income}) * 100"),
    Ratio("Total Payout Ratio", "(({dividends} + {repurchases}) / {net_income}) * 100"),
    Ratio("Inventory Turnover", "{cost_of_revenue} / {inventory}"),
    Ratio("Receivables Turnover", "{revenue} / {receivables}"),
    Ratio("Payables Turnover", "{cost_of_revenue} / {payables}"),
    Ratio("Fixed Asset Turnover", "{revenue} / {property}"),
    Ratio("Working Capital Turnover", "{revenue} / ({current_assets} - {current_liabilities})"),
    Ratio("Operating Return on Assets", "({operating_income} / {assets}) * 100"),
    Ratio("Return on Capital Employed", "({operating_income} / ({assets} - {current_liabilities})) * 100"),
    Ratio("Gross Profitability", "({gross_profit} / {assets}) * 100"),
    Ratio("Working Capital to Assets Ratio", "({current_assets} - {current_liabilities}) / {assets}"),
    Ratio("Equity Ratio", "({equity} / {assets}) * 100"),
    Ratio("Long-Term Debt to Equity Ratio", "{long_term_debt} / {equity}"),
    Ratio("Long-Term Debt to Assets Ratio", "{long_term_debt} / {assets}"),
    Ratio("Goodwill to Assets Ratio", "({goodwill} / {assets}) * 100"),
    Ratio("Retained Earnings to Assets Ratio", "({retained_earnings} / {assets}) * 100"),
    Ratio("Book Value per Share", "{equity} / {shares_outstanding}"),
    Ratio("Revenue per Share", "{revenue} / {average_shares}"),
    Ratio("Operating Cash Flow per Share", "{operating_cash_flow} / {average_shares}"),
)
"""Ratios that are asked about real filings only."""

ALL_RATIOS = (*RATIOS, *FURTHER_RATIOS)

PARTS = {
    "cash": "current_assets",
    "inventory": "current_assets",
    "receivables": "current_assets",
    "payables": "current_liabilities",
    "current_assets": "assets",
    "property": "assets",
    "goodwill": "assets",
    "current_liabilities": "liabilities",
    "retained_earnings": "equity",
    "gross_profit": "operating_income",
}
"""Whole by part: where a filing says how the whole is summed up, the part must be in it."""
