"""Contexts and facts of an XBRL instance (XBRL 2.1), free of XML."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """What a fact is about: who, when, and which part of the company.

    Attributes:
        id: Name within its filing; carries no meaning.
        entity: Identifier of the registrant, usually its CIK.
        start: First day (ISO 8601) of a duration; None for an instant.
        end: Last day of a duration, or the instant.
        dimensions: Pairs of axis and member; empty for the company as a whole. Sorted.
    """

    id: str
    entity: str
    start: str | None
    end: str
    dimensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fact:
    """One reported value.

    Attributes:
        tag: Concept with its usual prefix, such as "us-gaap:Goodwill".
        value: Text as filed, without surrounding blanks; None when reported as nil.
        unit: Such as "USD" or "USD/shares"; None for text.
        decimals: Digits right of the decimal point that are exact, such as "-6", or "INF"; None for text.
    """

    tag: str
    value: str | None
    context: Context
    unit: str | None = None
    decimals: str | None = None
