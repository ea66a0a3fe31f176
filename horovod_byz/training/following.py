"""Follows a program that was started, and is never left waiting for it.

A pipe stays open as long as any process has it, so a rank that outlived its launcher would keep a reader
waiting after the launcher had ended.
"""

from __future__ import annotations

import codecs
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["lines", "stopping"]

_LINGER = 10.0  # seconds after the end of a program in which what it left behind may still print
_STOP = 15.0  # seconds that a program has to end by itself; horovodrun gives its ranks 5


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a program prints, line by line, until its output ends, or it has ended and nothing more comes.

    Args:
        process: a program whose `stdout` is a pipe that nobody else reads.
    """
    assert process.stdout is not None
    pipe, decode = process.stdout.fileno(), codecs.getincrementaldecoder("utf-8")("replace").decode
    line, ended = "", None
    while True:
        if select.select([pipe], [], [], 0.5)[0]:
            data = os.read(pipe, 65536)
            if not data:
                break
            *whole, line = (line + decode(data)).split("\n")
            yield from (text + "\n" for text in whole)
        elif process.poll() is not None:
            ended = ended or time.monotonic()
            if time.monotonic() - ended > _LINGER:
                break
    if line:
        yield line


@contextmanager
def stopping(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends a program when the block raises, so that nothing waits for a program that nobody follows.

    Ctrl-C is left to the program itself: the terminal sends it there too.
    """
    try:
        yield
    except Exception:
        process.terminate()
        try:
            process.wait(timeout=_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
