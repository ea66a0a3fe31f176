"""The last look at the ranks' announcements, when the launcher ends this process."""

from __future__ import annotations

import dataclasses
import time

from horovod_byz.collect.channels import Channel
from horovod_byz.collect.inquiry import Finding, Inquiry
from horovod_byz.collect.notice import Notice, State

# Horovod's launcher kills 5 s after its SIGTERM, mpirun after about one.
_LONGEST, _PAUSE = 3.0, 0.05
_SHORT = 0.6
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
    lives = channel.signs_of_life
    inquiry = Inquiry(dataclasses.replace(said, state=State.RAISED), size, lives)
    deadline = time.monotonic() + (min(grace, _LONGEST) if lives else _SHORT)
    while True:
        notices = channel.read(inquiry.open)
        if notices is None:
            return _NOBODY
        inquiry.look(notices)
        late = time.monotonic() > deadline
        # Without signs of life, silence proves nothing: only what the others said counts.
        if inquiry.settled() or (late and lives and grace <= _LONGEST):
            return inquiry.finding()
        if late:
            return _NOBODY
        time.sleep(_PAUSE)
