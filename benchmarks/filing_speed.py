"""Seconds and peak memory of reading a filing: our reader, edgartools alone, Arelle alone.

Each reading has a fresh process with an empty home folder, so that no import and no cache is shared; the time
to import the library is kept apart. Arelle works offline and without the us-gaap schemas. Without a concept's
schema it does not take a plain element for a fact (`undefined`), nor an inline fact for a number.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

_MODULE = "finlora.benchmarks.filing_speed"


def main() -> None:
    """Measure the filings and inline documents below a data folder; `--help` explains the flags."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Measure readers of filings.")
    parser.add_argument("--data", type=Path, help="folder that holds filings/ and ixbrl/")
    parser.add_argument("--out", type=Path, help="JSONL file to write, one filing and reader a line")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many readings is kept")
    parser.add_argument("--read", nargs=2, metavar=("READER", "PATH"), help="read once, here, and print")
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read_here(arguments.read[0], Path(arguments.read[1]))))
        return
    if arguments.data is None or arguments.out is None:
        parser.error("--data and --out are needed")
    paths = [*sorted((arguments.data / "filings").iterdir()), *sorted((arguments.data / "ixbrl").iterdir())]
    rows = [
        measure(reader, path, arguments.repeats)
        for path in paths
        for reader in READERS
        # The XBRL class of edgartools reads plain instances only.
        if path.is_dir() or reader != "edgartools"
    ]
    arguments.out.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def measure(reader: str, path: Path, repeats: int = 1) -> dict:
    """The fastest of ``repeats`` readings, each in a process of its own.

    Returns:
        reader, filing, bytes of its files, and what ``read_here`` returns.

    Raises:
        RuntimeError: The reader is not installed, or failed.
    """
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", _MODULE, "--read", reader, str(path)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "HOME": home},
            )
        if done.returncode != 0:
            raise RuntimeError(f"{reader} failed on {path}: {done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    files = path.iterdir() if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    return {
        "reader": reader,
        "filing": path.name,
        "bytes": size,
        **min(rows, key=lambda row: row["cpu_seconds"]),
    }


def read_here(reader: str, path: Path) -> dict:
    """Reads a filing in this process.

    Returns:
        facts, numeric and undefined ones; cpu_seconds and seconds of reading; import_cpu_seconds;
        import_bytes and peak_bytes (resident memory after the import, and at most).
    """
    module, read = READERS[reader]
    start = time.process_time()
    library = importlib.import_module(module)
    import_bytes = _peak_bytes()
    imported, wall = time.process_time(), time.perf_counter()
    counts = read(library, path)
    return {
        **counts,
        # On a machine that does other work too, the processor's time says more than the clock's.
        "cpu_seconds": round(time.process_time() - imported, 3),
        "seconds": round(time.perf_counter() - wall, 3),
        "import_cpu_seconds": round(imported - start, 3),
        "import_bytes": import_bytes,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read_with_ours(library: ModuleType, path: Path) -> dict:
    filing = library.read_filing(path)
    reported = [*filing.facts, *(one.other for one in filing.duplicates)]
    numeric = sum(fact.unit is not None for fact in reported)
    return {"facts": filing.reported, "numeric": numeric, "undefined": 0}


def _read_with_edgartools(library: ModuleType, path: Path) -> dict:
    facts = library.XBRL.from_directory(path).facts.get_facts()
    numeric = sum(bool(fact.get("unit_ref")) for fact in facts)
    return {"facts": len(facts), "numeric": numeric, "undefined": 0}


def _read_with_arelle(library: ModuleType, path: Path) -> dict:
    controller = library.Cntlr(logFileName="logToBuffer")
    controller.webCache.workOffline = True
    model = controller.modelManager.load(str(path if path.is_file() else _instance(path)))
    numeric = sum(bool(fact.isNumeric) for fact in model.facts)
    return {"facts": len(model.facts), "numeric": numeric, "undefined": len(model.undefinedFacts)}


def _instance(folder: Path) -> Path:
    """The plain instance of a folder, which by the SEC's rules is all that is not called after a linkbase."""
    linkbases = ("_cal.xml", "_def.xml", "_lab.xml", "_pre.xml")
    return next(path for path in sorted(folder.glob("*.xml")) if not path.name.endswith(linkbases))


READERS: dict[str, tuple[str, Callable[[ModuleType, Path], dict]]] = {
    "finlora": ("finlora.experts.filings.filing", _read_with_ours),
    "edgartools": ("edgar.xbrl", _read_with_edgartools),
    "arelle": ("arelle.Cntlr", _read_with_arelle),
}
"""Module to import, and how it reads, by reader."""

if __name__ == "__main__":
    main()
