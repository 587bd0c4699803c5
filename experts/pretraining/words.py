"""Random words, names and numbers for the pretraining text."""

import random
import re

NAME_WORDS = re.findall(
    r"\w+",
    """
    Accrued Acquired Adjustment Allocation Allowance Annual Asset Available Award Balance Bank Benefit
    Bond Building Business Capital Cash Charge Claim Collateral Commercial Commitment Component
    Construction Contract Credit Current Customer Debt Deferred Deposit Derivative Discount Dividend
    Employee Equipment Equity Estimated Exchange Exercise Expected Expense Fair Federal Finance Foreign
    Fund Future Gain Gross Held Income Increase Instrument Insurance Interest Inventory Investment
    Issued Land Lease Legal Liability License Loan Loss Margin Market Maturity Net Note Obligation
    Operating Option Order Other Owned Parent Payable Payment Pension Period Plan Policy Portfolio
    Premium Price Product Profit Property Provision Purchase Rate Receivable Remaining Rent Reserve
    Restricted Return Revenue Right Royalty Sale Secured Security Segment Service Settlement Share
    Software Stock Tax Term Total Trade Unit Value
    """,
)
COMMON_WORDS = re.findall(
    r"\w+",
    """
    answer Answer question Question instruction Instruction input Input output Output file File tag tags
    value formula extraction construction calculation number only with sentence brief explain Explain
    term entity best choose from please Please what What which Which XBRL XML GAAP US us gaap news tweet
    headline sentiment positive negative neutral Yes No price going up down constant compare gold asset
    talk about Does does the The of and in for by is at
    """,
)


def random_name(random_state: random.Random) -> str:
    """Return a CamelCase name of one to four words, as a company extension may have."""
    return "".join(random_state.sample(NAME_WORDS, random_state.randint(1, 4)))


def random_value(random_state: random.Random) -> str:
    """Return a number as XBRL writes it: whole, sometimes negative, or with two decimals."""
    if random_state.random() < 0.1:
        return f"{random_state.uniform(0.1, 40):.2f}"
    sign = "-" if random_state.random() < 0.1 else ""
    zeros = random_state.choice(("", "000", "000000"))
    return f"{sign}{round(10 ** random_state.uniform(1.5, 6))}{zeros}"


def random_words(random_state: random.Random) -> str:
    """Return one to five common words, each followed by a blank."""
    return "".join(f"{random_state.choice(COMMON_WORDS)} " for _ in range(random_state.randint(1, 5)))


def random_word(random_state: random.Random) -> str:
    """Return a number, a word of names, or a common word."""
    kind = random_state.random()
    if kind < 0.3:
        return random_value(random_state)
    return random_state.choice(NAME_WORDS if kind < 0.6 else COMMON_WORDS)
