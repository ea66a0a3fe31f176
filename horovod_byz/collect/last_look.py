"""The last look at the ranks' announcements, when the launcher ends this process."""

from __future__ import annotations

import dataclasses
import time

from horovod_byz.collect.channels import Channel
from horovod_byz.collect.inquiry import Finding, Inquiry
from horovod_byz.collect.notice import Notice, State

# Horovod's launcher kills 5 s after its SIGTERM.
_LONGEST, _PAUSE = 3.0, 0.05
_NOBODY = Finding((), "")


def last_look(said: Notice, size: int, channel: Channel, grace: float) -> Finding:
    """The ranks that are known to have failed, within the time that a launcher leaves.

    Args:
        said: this rank's last announcement.
        size: number of ranks.
        channel: the side channel.
        grace: seconds within which a living rank announces itself, where ranks give signs of life.
    """
    # As of an operation that broke off: a rank that computes was not late, and is ended like this one.
    inquiry = Inquiry(dataclasses.replace(said, state=State.RAISED), size, channel.signs_of_life)
    deadline = time.monotonic() + min(grace, _LONGEST)
    while True:
        notices = channel.read(inquiry.open)
        if notices is None:
            return _NOBODY
        inquiry.look(notices)
        if inquiry.settled():
            return inquiry.finding()
        # Without signs of life silence proves nothing, and mpirun kills within 0.1 s.
        if not channel.signs_of_life:
            return _NOBODY
        if time.monotonic() > deadline:
            return inquiry.finding() if grace <= _LONGEST else _NOBODY
        time.sleep(_PAUSE)
