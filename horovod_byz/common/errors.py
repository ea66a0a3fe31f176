"""The base of errors that the `horovod-byz` command shows as one message."""

from __future__ import annotations

__all__ = ["ExplainedError"]


class ExplainedError(Exception):
    """An error whose message is enough for a user: the command shows it without a traceback.

    Attributes:
        code: exit code of the command after this error.
    """

    code = 1
