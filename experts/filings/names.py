"""Qualified names with their usual prefix: "us-gaap:Goodwill", whatever a document calls the namespace."""

import re
from collections.abc import Mapping

_STANDARD_NAMESPACE = re.compile(
    # xbrl.us published the taxonomies of 2009, FASB and SEC those since; years are 2023, 2009-01-31, 2022q3.
    r"https?://(?:fasb\.org|xbrl\.sec\.gov|xbrl\.us)/([a-z-]+)/\d{4}"
    r"|https?://xbrl\.ifrs\.org/taxonomy/[\d-]+/(ifrs-full)"
)


def prefixed(namespace: str | None, name: str, prefix: str | None) -> str:
    """The name with the usual prefix of its namespace, else with the document's own ``prefix``."""
    standard = _STANDARD_NAMESPACE.match(namespace or "")
    usual = standard[1] or standard[2] if standard else prefix
    return f"{usual}:{name}" if usual else name


def usual_name(text: str, namespaces: Mapping[str | None, str]) -> str:
    """A name as written in a document (``gaap:Goodwill``) with its usual prefix.

    Args:
        text: Name, with the document's prefix or none.
        namespaces: Namespaces by prefix where the name stands.
    """
    prefix, _, name = text.strip().rpartition(":")
    return prefixed(namespaces.get(prefix or None), name, prefix or None)
