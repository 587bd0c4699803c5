"""What the questions and answers of a round with secure aggregation hold beside those of other rounds."""

from .messages import Header, MessageError

KEYS = "query.keys"
"""Asks for a bank's signed keys of a round."""
SHARES = "query.shares"
"""Sends all banks' keys and asks for sealed shares."""
REVEAL = "query.reveal"
"""Says whose masked lanes have come and asks for one share of each bank."""

PUBLIC_KEYS = "keys"
BANKS, SHARE_LIST = "banks", "shares"
PROOF, SIGNATURE = "proof", "signature"
MASKED = "masked"
"""Name of the one tensor of a secure answer to "train"."""

NOT_OF_THE_ADAPTER = (BANKS, SHARE_LIST)
"""Fields of a question to train that differ when it is asked again with the same adapter."""


def bytes_of(header: Header, name: str) -> bytes:
    """Return bytes of a header.

    Raises:
        MessageError: They are missing or something else.
    """
    value = header.get(name)
    if not isinstance(value, bytes):
        raise MessageError(f"The message's header has no bytes {name}.")
    return value


def names_of(header: Header, name: str) -> list[str]:
    """Return a list of distinct names of a header.

    Raises:
        MessageError: It is missing or something else.
    """
    value = header.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MessageError(f"The message's header has no list of names {name}.")
    if len(set(value)) < len(value):
        raise MessageError(f"The list {name} of the message's header names a bank twice.")
    return [str(item) for item in value]


def pairs_of(header: Header, values: str) -> dict[str, bytes]:
    """Return what a header holds for each bank: the lists BANKS and `values` as one mapping.

    Raises:
        MessageError: They are missing, something else, or of different lengths.
    """
    names, contents = names_of(header, BANKS), header.get(values)
    if not isinstance(contents, list) or len(contents) != len(names):
        raise MessageError(f"The message's header has no list {values} with one entry for each bank.")
    found = {name: item for name, item in zip(names, contents, strict=True) if isinstance(item, bytes)}
    if len(found) < len(names):
        raise MessageError(f"The list {values} of the message's header holds something else than bytes.")
    return found


def lists_of(pairs: dict[str, bytes], values: str) -> dict[str, list[str] | list[bytes]]:
    """Return the fields that `pairs_of` reads back."""
    return {BANKS: list(pairs), values: list(pairs.values())}
