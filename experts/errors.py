"""The one exception a user of FinLoRA is meant to read."""


class FinLoraError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what was given, what is allowed, what to do. The command line prints it
    without a traceback; everything else that is raised is a defect of FinLoRA.
    """
