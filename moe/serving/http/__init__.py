"""The HTTP API: OpenAI's completions and chat on any `ServingEngine`, experts, metrics, and a page."""
