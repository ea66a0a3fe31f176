"""A rank's script ends before the others'. Ends the job."""

import sys

from absence import last_words, step_without


def check_exit():
    def go():
        last_words("check_exit")
        sys.exit(0)

    return step_without(go)
