"""XBRL filings: read real ones, invent consistent ones, make task examples of either."""
