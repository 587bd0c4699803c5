"""From a request's prompt or messages to token ids."""

import threading
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ....experts.encoding import encode_prompt
from .api_error import ApiError
from .openai_requests import ChatMessage, ChatRequest, CompletionRequest


class Prompts:
    """Turns what a user wrote into what the engine continues. Safe in any thread."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, token_limit: int):
        """Use the base's tokenizer.

        Args:
            tokenizer: With or without a chat template.
            token_limit: Tokens, prompt and answer together, that the base can hold.
        """
        self._tokenizer, self._limit = tokenizer, token_limit
        # A fast tokenizer that two threads use at once raises "Already borrowed".
        self._lock = threading.Lock()

    def of_completion(self, request: CompletionRequest) -> list[list[int]]:
        """Return token ids of each prompt.

        Text is opened by BOS and loses white space at its end, as experts saw it in training.
        """
        prompts = _prompts(request)
        return [self._encode(one) if isinstance(one, str) else one for one in prompts]

    def of_chat(self, request: ChatRequest) -> list[int]:
        """Return token ids of a conversation, by the tokenizer's chat template.

        Without a template, texts of system and user messages are joined by line breaks and continued like the
        prompt of a completion: one user message is then what experts were trained on.

        Raises:
            ApiError: 400 if the template refuses the messages, or there is none and the assistant spoke.
        """
        if self._tokenizer.chat_template is None:
            if any(message.role == "assistant" for message in request.messages):
                raise ApiError(
                    400,
                    "The base has no chat template, so it cannot tell who said what; send user and system "
                    "messages only, or use /v1/completions.",
                    parameter="messages",
                )
            return self._encode("\n".join(message.text for message in request.messages))
        messages = [_plain(message) for message in request.messages]
        with self._lock:
            try:
                text = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            except (TemplateError, TypeError, ValueError) as error:
                raise ApiError(
                    400, f"The base's chat template refuses the messages: {error}.", parameter="messages"
                ) from error
            return self._tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore

    def room(self, prompt: Sequence[int], wanted: int | None, *, parameter: str) -> int:
        """Return how many tokens an answer may have.

        Args:
            prompt: Token ids.
            wanted: As the request has it; None fills the base.
            parameter: Field that holds the prompt.

        Raises:
            ApiError: 400 if prompt and answer do not fit the base.
        """
        left = self._limit - len(prompt)
        if not prompt:
            raise ApiError(400, f"The field {parameter} is empty.", parameter=parameter)
        if left < 1 or (wanted is not None and wanted > left):
            raise ApiError(
                400,
                f"The base holds {self._limit:,} tokens, but the prompt has {len(prompt):,}"
                + (f" and {wanted:,} new ones are asked for" if wanted is not None and left >= 1 else "")
                + "; shorten the prompt or lower max_tokens.",
                parameter=parameter if left < 1 else "max_tokens",
                code="context_length_exceeded",
            )
        return left if wanted is None else wanted

    def _encode(self, text: str) -> list[int]:
        with self._lock:
            return encode_prompt(self._tokenizer, text)


def _prompts(request: CompletionRequest) -> list[str] | list[list[int]]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]  # pyright: ignore[reportReturnType]
    return prompt  # pyright: ignore[reportReturnType]


def _plain(message: ChatMessage) -> dict[str, str]:
    named = {} if message.name is None else {"name": message.name}
    return {"role": message.role, "content": message.text, **named}
