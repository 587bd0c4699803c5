"""The prose of SEC filings (public record) for pretraining: paragraphs of inline XBRL documents."""

import re
from pathlib import Path

from lxml import html

_SHORTEST = 120
"""Characters below which a block is a heading or a table cell."""


def filing_paragraphs(folder: Path) -> list[str]:
    """Return the distinct paragraphs of the `.htm` and `.html` documents in `folder`, in file order."""
    paragraphs: dict[str, None] = {}
    for path in sorted([*folder.glob("*.htm"), *folder.glob("*.html")]):
        root = html.fromstring(path.read_bytes())
        for element in root.iter("div", "p"):
            if element.find(".//table") is not None or element.find(".//div") is not None:
                continue
            text = re.sub(r"\s+", " ", element.text_content()).strip()
            if len(text) >= _SHORTEST:
                paragraphs[text] = None
    return list(paragraphs)
