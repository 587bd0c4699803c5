"""What server and banks put into Flower's messages, and how each reads what the other sent.

One instruction or answer is a `RecordDict` with a `ConfigRecord` named "header" and, where tensors go with
it, an `ArrayRecord` named "tensors". Whatever cannot be read so is refused; nothing is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import FinLoraError
from .manifest import Update

HEADER, TENSORS = "header", "tensors"
FORMAT = "safetensors"
"""How all tensors of a message are stored."""

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
    """Return what `unpack` reads back.

    All tensors go as one array of bytes in the format of safetensors: Flower fetches each array by calls of
    its own, which for the many small tensors of an adapter take longer than training.
    """
    record = RecordDict({HEADER: ConfigRecord(dict(content.header))})
    if content.tensors:
        data = save({name: np.ascontiguousarray(values) for name, values in content.tensors.items()})
        record[TENSORS] = ArrayRecord({TENSORS: Array("uint8", (len(data),), FORMAT, data)})
    return record


def unpack(record: RecordDict) -> Content:
    """Return what a message holds.

    Raises:
        MessageError: It has no header, or its tensors are damaged or in another format.
    """
    header = record.config_records.get(HEADER)
    if header is None:
        raise MessageError("The message has no header.")
    arrays = record.array_records.get(TENSORS)
    return Content(dict(header), {} if arrays is None else _tensors(arrays))


def _tensors(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    if set(arrays) != {TENSORS} or arrays[TENSORS].stype != FORMAT:
        raise MessageError(f"The tensors of the message are not stored as {FORMAT}.")
    try:
        return load(arrays[TENSORS].data)
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise MessageError("The tensors of the message are damaged.") from None


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
