"""Financial concepts of the invented filings: us-gaap names, labels and definitions.

The names are those of the us-gaap taxonomy; labels and definitions are our own wording.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """One reportable concept."""

    tag: str
    """us-gaap element name without prefix."""
    label: str
    """Standard label in lower case, as prose uses it."""
    definition: str
    """What the concept measures, one sentence without a full stop."""
    period: str
    """`instant` for balances, `duration` for flows."""


def _table(period: str, rows: str) -> list[Concept]:
    """Parse lines `tag | label | definition` into concepts of one period type."""
    cells = [[cell.strip() for cell in row.split("|")] for row in rows.strip().splitlines()]
    return [Concept(tag, label, definition, period) for tag, label, definition in cells]


_BALANCES = """
CashAndCashEquivalentsAtCarryingValue | cash and cash equivalents | currency on hand and deposits that can be withdrawn at any time
ShortTermInvestments | short-term investments | securities that will be turned into cash within one year
AccountsReceivableNetCurrent | accounts receivable | amount due from customers within one year, net of expected credit losses
InventoryNet | inventories | goods held for sale and materials used to make them, net of reserves
PrepaidExpenseCurrent | prepaid expenses | costs paid before the goods or services are received, due within one year
OtherAssetsCurrent | other current assets | current assets that are not listed separately
AssetsCurrent | total current assets | assets expected to be turned into cash or used up within one year
PropertyPlantAndEquipmentNet | property and equipment | tangible assets used in operations, net of depreciation
OperatingLeaseRightOfUseAsset | operating lease assets | right to use property rented under operating leases
Goodwill | goodwill | price paid for acquired businesses above the fair value of their net assets
IntangibleAssetsNetExcludingGoodwill | intangible assets | assets without physical form other than goodwill, net of amortization
LongTermInvestments | long-term investments | securities that will be held for more than one year
DeferredIncomeTaxAssetsNet | deferred tax assets | future tax savings from deductible temporary differences
OtherAssetsNoncurrent | other noncurrent assets | noncurrent assets that are not listed separately
Assets | total assets | everything the company owns that will bring future benefits
AccountsPayableCurrent | accounts payable | amount owed to suppliers for goods and services received, due within one year
AccruedLiabilitiesCurrent | accrued liabilities | expenses incurred that have not been paid, due within one year
ContractWithCustomerLiabilityCurrent | deferred revenue | payments received from customers before the service is delivered
LongTermDebtCurrent | current portion of debt | part of long-term borrowings that is due within one year
EmployeeRelatedLiabilitiesCurrent | accrued compensation | wages and benefits earned by employees that have not been paid
OperatingLeaseLiabilityCurrent | current lease liabilities | rent payments under operating leases due within one year
OtherLiabilitiesCurrent | other current liabilities | current obligations that are not listed separately
LiabilitiesCurrent | total current liabilities | obligations that must be settled within one year
LongTermDebtNoncurrent | long-term debt | borrowings that are due after more than one year
OperatingLeaseLiabilityNoncurrent | noncurrent lease liabilities | rent payments under operating leases due after one year
DeferredIncomeTaxLiabilitiesNet | deferred tax liabilities | future tax payments from taxable temporary differences
OtherLiabilitiesNoncurrent | other noncurrent liabilities | noncurrent obligations that are not listed separately
Liabilities | total liabilities | all obligations of the company to outside parties
CommonStockValue | common stock | par value of the shares issued to owners
AdditionalPaidInCapital | additional paid-in capital | amount received from owners above the par value of shares
RetainedEarningsAccumulatedDeficit | retained earnings | profits kept in the company since its start and not paid to owners
TreasuryStockValue | treasury stock | cost of own shares that the company bought back
AccumulatedOtherComprehensiveIncomeLossNetOfTax | accumulated other comprehensive loss | gains and losses kept in equity that have not passed through net income
StockholdersEquity | total stockholders equity | what belongs to owners after all obligations are paid
LiabilitiesAndStockholdersEquity | total liabilities and equity | sum of all obligations and what belongs to owners
CommonStockSharesOutstanding | common shares outstanding | number of shares held by owners
AllowanceForDoubtfulAccountsReceivableCurrent | allowance for doubtful accounts | amount of receivables that customers are expected not to pay
UnrecognizedTaxBenefits | unrecognized tax benefits | tax positions taken that may not hold when examined
LineOfCreditFacilityMaximumBorrowingCapacity | credit facility capacity | largest amount that can be drawn under the credit agreement
DebtInstrumentFaceAmount | principal amount of notes | amount of the notes that must be repaid at maturity
"""

_FLOWS = """
Revenues | revenues | amount earned from selling goods and services
CostOfRevenue | cost of revenue | direct costs of the goods and services sold
GrossProfit | gross profit | revenue left after direct costs
ResearchAndDevelopmentExpense | research and development expense | cost of creating new products and improving old ones
SellingGeneralAndAdministrativeExpense | selling and administrative expense | cost of selling products and running the company
MarketingExpense | marketing expense | cost of promoting products to customers
OperatingExpenses | total operating expenses | costs of running the business other than direct costs
OperatingIncomeLoss | operating income | profit from the main business before interest and taxes
InterestExpense | interest expense | cost of borrowed money in the period
InvestmentIncomeInterest | interest income | interest earned on cash and securities
IncomeLossFromContinuingOperationsBeforeIncomeTaxesExtraordinaryItemsNoncontrollingInterest | income before taxes | profit of the period before taxes on income
IncomeTaxExpenseBenefit | income tax expense | taxes on the profit of the period
NetIncomeLoss | net income | profit left for owners after all costs and taxes
EarningsPerShareBasic | basic earnings per share | profit for each share held by owners
EarningsPerShareDiluted | diluted earnings per share | profit for each share if all rights to shares were used
DepreciationDepletionAndAmortization | depreciation and amortization | cost of long-lived assets charged to the period
ShareBasedCompensation | stock-based compensation | value of shares and options given to employees in the period
NetCashProvidedByUsedInOperatingActivities | cash from operating activities | cash generated by the main business in the period
PaymentsToAcquirePropertyPlantAndEquipment | capital expenditures | cash paid for property and equipment
NetCashProvidedByUsedInInvestingActivities | cash from investing activities | cash received from or paid for investments and long-lived assets
PaymentsOfDividends | dividends paid | cash paid to owners from profits
PaymentsForRepurchaseOfCommonStock | share repurchases | cash paid to buy back own shares
ProceedsFromIssuanceOfLongTermDebt | proceeds from debt | cash received from new long-term borrowings
RepaymentsOfLongTermDebt | repayments of debt | cash paid to reduce long-term borrowings
NetCashProvidedByUsedInFinancingActivities | cash from financing activities | cash received from or paid to owners and lenders
AmortizationOfIntangibleAssets | amortization of intangible assets | cost of intangible assets charged to the period
OperatingLeaseCost | operating lease cost | rent charged to the period under operating leases
RestructuringCharges | restructuring charges | cost of closing sites and cutting jobs
GoodwillImpairmentLoss | goodwill impairment | loss from writing down the price paid for acquired businesses
InterestPaidNet | interest paid | cash paid to lenders as interest
IncomeTaxesPaidNet | income taxes paid | cash paid to tax authorities
PaymentsToAcquireBusinessesNetOfCashAcquired | acquisitions of businesses | cash paid for other companies, net of the cash they held
StockRepurchasedDuringPeriodValue | value of stock repurchased | value of own shares bought back in the period
WeightedAverageNumberOfSharesOutstandingBasic | weighted average shares | mean number of shares held by owners in the period
"""

CONCEPTS: dict[str, Concept] = {
    concept.tag: concept for concept in _table("instant", _BALANCES) + _table("duration", _FLOWS)
}
