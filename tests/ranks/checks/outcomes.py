"""What this rank's checks returned, in a file that the tests read; and a meeting of ranks by files."""

import json
import os
import pathlib
import time

PATIENCE = 60.0  # seconds that ranks wait for each other in `meet`

_returned = {}
_rank = None


def _folder():
    return pathlib.Path(os.environ["RANK_RESULTS"])


def begin(rank):
    """Says which rank this is."""
    global _rank
    _rank = rank


def record(check, value):
    """Writes a check's result beside those of the checks before; all at once, as the rank may be killed."""
    text = json.dumps({**_returned, check: value})
    _returned[check] = value
    fresh = _folder() / f"{_rank}.new"
    fresh.write_text(text)
    fresh.replace(_folder() / f"{_rank}.json")


def meet(place, size):
    """Waits until all ranks are here, without Horovod, which may have ended on some; not for ever."""
    (_folder() / f"{place}.{_rank}").touch()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and len(list(_folder().glob(f"{place}.*"))) < size:
        time.sleep(0.05)
