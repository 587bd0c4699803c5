"""What a bank proves about its lanes, and the same as an ONNX graph, from which ezkl makes the circuit.

The lanes of a proof are those of the update, then hiding lanes. The statement: all lanes are whole
numbers of at most MAX_LANE_BITS bits, and the squares of the update's lanes add up to at most
`squared_bound`. Since the lanes are that small, their squares cannot wrap around in the field of the
circuit (254 bits), and no lane of the update can be larger than the bound's root.

The commitment of ezkl is a function of the lanes alone, and each proof shows the value of the committed
polynomial at one random place. So a guess at an update could be tested, were it not for the hiding lanes.
They are random, 20 bits each, and count in no norm; HIDING_LANES of them hold far more than the 254 bits
that one proof shows, also where only the sum of two banks' hiding lanes is left to a guesser that knows
the aggregate.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import FinLoraError
from ..quantize import squared_bound

HIDING_LANES = 64
HIDING_BITS = 20

MAX_LANE_BITS = 60
"""More than any bound on a norm needs; squares of lanes add up to less than 2^(2 * 60 + 30)."""

OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True)
class NormStatement:
    """The statement for vectors of one length."""

    values: int
    """Lanes of the update, whose norm is bounded."""
    squared_bound: int
    """Largest sum of their squares; a float32 must hold it."""
    hiding: int = HIDING_LANES
    """Random lanes after them."""

    def __post_init__(self) -> None:
        """Reject statements that no circuit could hold exactly."""
        if self.values < 1 or self.hiding < 0 or self.squared_bound < 1:
            raise FinLoraError("A statement is about at least one lane and a bound of at least 1.")
        if self.squared_bound.bit_length() > MAX_LANE_BITS:
            raise FinLoraError(f"The bound {self.squared_bound} is too large; choose a smaller max_norm.")
        if int(np.float32(self.squared_bound)) != self.squared_bound:
            raise FinLoraError(f"The bound {self.squared_bound} is no float32; use quantize.squared_bound.")

    @classmethod
    def of(cls, values: int, max_norm: float) -> "NormStatement":
        """Return the statement that updates with so many values have at most this L2 norm."""
        return cls(values, squared_bound(max_norm))

    @property
    def lanes(self) -> int:
        """Length of the vectors that are proved, masked and added."""
        return self.values + self.hiding

    def write_onnx(self, path: Path) -> None:
        """Write the graph: one row of lanes in, 1.0 out where the norm is bounded, else 0.0.

        Range checks of the input are ezkl's own (`ignore_range_check_inputs_outputs` is off).
        """
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        constants = {
            "first": np.array([0], np.int64),
            "end": np.array([self.values], np.int64),
            "axis": np.array([1], np.int64),
            "bound": np.array([[self.squared_bound]], np.float32),
        }
        nodes = [
            helper.make_node("Slice", ["lanes", "first", "end", "axis"], ["update"]),
            helper.make_node("Mul", ["update", "update"], ["squares"]),
            helper.make_node("ReduceSum", ["squares", "axis"], ["norm"], keepdims=1),
            helper.make_node("LessOrEqual", ["norm", "bound"], ["is_bounded"]),
            helper.make_node("Cast", ["is_bounded"], ["output"], to=TensorProto.FLOAT),
        ]
        graph = helper.make_graph(
            nodes,
            "bounded_norm",
            [helper.make_tensor_value_info("lanes", TensorProto.FLOAT, [1, self.lanes])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])],
            [numpy_helper.from_array(values, name) for name, values in constants.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION), path)
