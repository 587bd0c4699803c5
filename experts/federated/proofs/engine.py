"""How ezkl is called: its settings for a statement, its failures as errors of ours.

ezkl (https://github.com/zkonduit/ezkl, 23.0.5) turns an ONNX graph into a Halo2 circuit over BN254 with KZG
commitments. It is imported where it is used, since a plain installation lacks it.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FinLoraError
from .statement import HIDING_BITS, NormStatement

LOGROWS = range(9, 18)
"""Sizes of circuits that are tried, as powers of two; each step doubles time and memory."""

ROWS_PER_LANE = 6
"""Fewer than any lane takes for its range check and square; spares trying what cannot fit."""

SPARE_ROWS = 16
"""Rows of a circuit that hold blinding factors."""

CONSTANT_ARGUMENTS = {
    "input_visibility": "polycommit",
    "output_visibility": "public",
    "param_visibility": "fixed",
    # Lanes are whole numbers already, and no product is rounded.
    "input_scale": 0,
    "param_scale": 0,
    "scale_rebase_multiplier": 10,
    "lookup_range": (0, 1),
    "num_inner_cols": 2,
    # The range check of the input is half of the statement.
    "ignore_range_check_inputs_outputs": False,
    "disable_freivalds": True,
}
"""How ezkl treats every statement; see `PyRunArgs` in its documentation."""


class ProofError(FinLoraError):
    """A proof, key or commitment that does not hold. The message names no lane."""


@contextlib.contextmanager
def engine_errors(message: str) -> Iterator[None]:
    """Turn whatever ezkl raises into one sentence; its own texts can quote inputs.

    Raises:
        ProofError: ezkl failed.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, FinLoraError):
        raise
    # Rust panics arrive as a class that is no Exception and that cannot be imported.
    except BaseException:
        raise ProofError(message) from None


def write_settings(statement: NormStatement, graph: Path, out: Path) -> None:
    """Write ezkl's settings of the smallest circuit that holds a statement.

    They come from the graph alone. ezkl's own calibration would look at an update.

    Args:
        statement: What is to be proved.
        graph: Its ONNX file.
        out: Settings to write.

    Raises:
        ProofError: No circuit of a size in `LOGROWS` is large enough.
    """
    import ezkl

    for logrows in LOGROWS:
        if (1 << logrows) < ROWS_PER_LANE * statement.lanes:
            continue
        # A number is split into digits; a table lists all digits, so it must fit into the circuit's rows.
        digit_bits = logrows - 1
        bits = max(statement.squared_bound.bit_length(), HIDING_BITS + 1)
        arguments = ezkl.PyRunArgs()
        for name, value in {
            **CONSTANT_ARGUMENTS,
            "logrows": logrows,
            "decomp_base": 1 << digit_bits,
            "decomp_legs": -(-bits // digit_bits),
        }.items():
            setattr(arguments, name, value)
        with engine_errors("ezkl could not read the graph of the statement."):
            ezkl.gen_settings(str(graph), str(out), py_run_args=arguments)
        settings = json.loads(out.read_text(encoding="utf-8"))
        rows = max(settings["num_rows"], statement.lanes)
        if rows + SPARE_ROWS <= 1 << logrows == 1 << settings["run_args"]["logrows"]:
            return
    raise ProofError(
        f"An update of {statement.values} values is too long for one proof; share fewer, as "
        "the adapter core does."
    )


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what two parties' settings must agree in: all but the time and the order of tables."""
    kept = {name: value for name, value in settings.items() if name != "timestamp"}
    for name in ("required_range_checks", "required_lookups"):
        kept[name] = sorted(kept[name], key=str)
    kept["einsum_params"] = {
        **kept["einsum_params"],
        "equations": sorted(
            json.dumps([equation, sorted(sizes.items())])
            for equation, sizes in kept["einsum_params"]["equations"]
        ),
    }
    return kept
