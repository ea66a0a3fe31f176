"""The base of errors that the `horovod-byz` command shows as one message."""

from __future__ import annotations

__all__ = ["ExplainedError"]


class ExplainedError(Exception):
    """An error whose message says all that a user needs: the command shows it without a traceback.

    Attributes:
        code: the exit code that the command then ends with.
    """

    code = 1
