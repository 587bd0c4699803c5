"""What server and banks put into Flower's messages, and how each reads what the other sent.

One instruction or answer is a `RecordDict` with a `ConfigRecord` named "header" and, where tensors go with
it, an `ArrayRecord` named "tensors". Whatever cannot be read so is refused; nothing is ever unpickled.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from ..errors import FinLoraError
from .manifest import Update

HEADER, TENSORS = "header", "tensors"

JOIN = "query.join"
"""Asks a bank who it is and whether it takes part."""
TRAIN = "train"
"""Sends the global adapter of a round and asks for an update."""
FINISH = "query.finish"
"""Sends the final adapter, which the bank writes as an expert of its own."""

FAILURE = "The bank could not answer; the reason stands in its own log."
"""What leaves a bank when anything raised: texts of exceptions can hold data."""

Header = Mapping[str, Any]
"""What Flower's ConfigRecord holds: texts, numbers, truth values, bytes, and lists of one of these."""


class MessageError(FinLoraError):
    """A message that is none of ours. Its text quotes nothing from the message."""


@dataclass(frozen=True)
class Content:
    """What one message holds."""

    header: Header
    """Plain values."""
    tensors: Update = field(default_factory=dict)
    """Named arrays."""


def pack(content: Content) -> RecordDict:
    """Return what `unpack` reads back."""
    record = RecordDict({HEADER: ConfigRecord(dict(content.header))})
    if content.tensors:
        arrays = {name: Array(np.ascontiguousarray(values)) for name, values in content.tensors.items()}
        record[TENSORS] = ArrayRecord(arrays)
    return record


def unpack(record: RecordDict) -> Content:
    """Return what a message holds.

    Raises:
        MessageError: It has no header, or its arrays are damaged, pickled or larger than they say.
    """
    header = record.config_records.get(HEADER)
    if header is None:
        raise MessageError("The message has no header.")
    arrays = record.array_records.get(TENSORS, {})
    return Content(dict(header), {name: _read(array) for name, array in arrays.items()})


def _read(array: Array) -> np.ndarray:
    # `Array.numpy` believes the header of the bytes; a few bytes can ask for terabytes.
    if array.stype != "numpy.ndarray":
        raise MessageError("A tensor of the message is not stored as a NumPy array.")
    try:
        stream = io.BytesIO(array.data)
        major = np.lib.format.read_magic(stream)[0]
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
        shape, _, dtype = read_header(stream)
        if (
            dtype.hasobject
            or int(np.prod(shape, dtype=object)) * dtype.itemsize != len(array.data) - stream.tell()
        ):
            raise ValueError
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    except (ValueError, KeyError, EOFError, OSError, OverflowError):
        raise MessageError("A tensor of the message is damaged.") from None


def text_of(header: Header, name: str) -> str:
    """Return a text of a header.

    Raises:
        MessageError: It is missing or no text.
    """
    value = header.get(name)
    if not isinstance(value, str):
        raise MessageError(f"The message's header has no text {name}.")
    return value


def number_of(header: Header, name: str) -> int:
    """Return a whole number of a header.

    Raises:
        MessageError: It is missing or no whole number.
    """
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MessageError(f"The message's header has no whole number {name}.")
    return value
