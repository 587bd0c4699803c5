"""Fetches the files of a filing from the SEC's EDGAR through edgartools: the only use of the network."""

import importlib
import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import FinLoraError

_IDENTITY = "EDGAR_IDENTITY"
_SUFFIXES = (".xml", ".xsd", ".htm", ".html")


def fetch_filing(
    ticker_or_cik: str, form: str, year: int, out_folder: str | Path, *, identity: str | None = None
) -> Path:
    """Saves the XBRL and HTML files of one filing, for ``read_filing``.

    Args:
        ticker_or_cik: Such as "AAPL" or "320193".
        form: Such as "10-K" or "10-Q"; amendments are left out.
        year: Calendar year in which the reported period ends. Of several filings (10-Q) the latest is taken.
        out_folder: Folder to create; it is there when, and only when, all files are in it.
        identity: Name and e-mail address that the SEC asks of whoever downloads, by default what the
            environment's EDGAR_IDENTITY says.

    Returns:
        The folder.

    Raises:
        FinLoraError: edgartools or the identity is missing, the folder exists, there is no such filing or it
            has no XBRL, or EDGAR does not answer.
    """
    out_folder = Path(out_folder)
    if out_folder.exists():
        raise FinLoraError(f"{out_folder} exists and is never overwritten; choose another folder.")
    if importlib.util.find_spec("edgar") is None:
        raise FinLoraError("edgartools is not installed; run `pip install finlora[edgar]`.")
    identity = identity or os.environ.get(_IDENTITY)
    if not identity:
        raise FinLoraError(
            f"The SEC asks who downloads and {_IDENTITY} is not set; set it to a name and e-mail address, "
            "such as 'Jo Doe jo@example.com'."
        )
    # By name, since a type checker takes `import edgar` for this very file.
    edgar, httpx = importlib.import_module("edgar"), importlib.import_module("httpx")
    edgar.set_identity(identity)
    temporary = out_folder.with_name(f".{out_folder.name}.{os.getpid()}.tmp")
    try:
        filing = _find(edgar, ticker_or_cik, form, year)
        temporary.mkdir(parents=True)
        _save(filing, temporary)
        temporary.rename(out_folder)
    except (edgar.EdgarError, httpx.HTTPError, OSError) as error:
        raise FinLoraError(
            f"The {form} of {ticker_or_cik} for {year} cannot be fetched from EDGAR: {error}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out_folder


def _find(edgar: ModuleType, ticker_or_cik: str, form: str, year: int) -> Any:
    # A year that ends in December is reported in the next one.
    filings = edgar.Company(ticker_or_cik).get_filings(form=form, year=[year, year + 1], amendments=False)
    periods = {filing.report_date: filing for filing in filings}
    ends = [end for end in periods if str(end).startswith(str(year))]
    if not ends:
        found = ", ".join(sorted(map(str, periods))) or "none"
        raise FinLoraError(
            f"{ticker_or_cik} filed no {form} for a period that ends in {year}; "
            f"give another year or form, of that and the next year there are periods that end: {found}."
        )
    return periods[max(ends)]


def _save(filing: Any, folder: Path) -> None:
    for attachment in filing.attachments:
        # Names come from outside; only the last part may become a path here.
        name = Path(attachment.document).name
        if not name.lower().endswith(_SUFFIXES):
            continue
        content = attachment.content
        if content:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    if not any(folder.iterdir()):
        raise FinLoraError(f"The filing {filing.accession_no} has no XBRL files; choose a later year.")
