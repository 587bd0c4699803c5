"""The bank's Flower app: every message goes to the `Bank`, and no text of an exception goes back.

The same `ClientApp` runs in simulation (`simulation.py`) and in a bank's own process beside its SuperNode
(`deployment/bank_process.py`). It is the app that the bank installed, never code that came from a server.
"""

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from .bank import Bank, RefusalError
from .manifest import UpdateError
from .messages import FAILURE, FINISH, JOIN, TRAIN, MessageError, pack, unpack
from .proofs.engine import ProofError
from .secure_messages import KEYS, REVEAL, SHARES
from .secure_sum import SecureSumError

logger = logging.getLogger(__name__)

SPEAKABLE = (RefusalError, UpdateError, MessageError, SecureSumError, ProofError)
"""Errors whose texts are about what the server sent, and hold no values."""


def bank_app(find_bank: Callable[[Context], Bank]) -> ClientApp:
    """Return the app of one or several banks.

    Args:
        find_bank: The bank that a node stands for.
    """
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        try:
            content = find_bank(context).answer(message.metadata.message_type, unpack(message.content))
            return Message(pack(content), reply_to=message)
        except SPEAKABLE as error:
            return _error(message, str(error))
        except Exception:
            logger.exception("The bank could not answer a message of type %s.", message.metadata.message_type)
            return _error(message, FAILURE)

    for kind in (JOIN, KEYS, SHARES, TRAIN, REVEAL, FINISH):
        category, _, action = kind.partition(".")
        register = getattr(app, category)
        register(action)(answer) if action else register()(answer)
    return app


def _error(message: Message, text: str) -> Message:
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=text), reply_to=message)
