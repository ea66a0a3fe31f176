"""Announcements of ranks, in few words, for tests of who is late."""

from horovod_byz.collect.notice import Notice


def at(rank, state, beat=0, step=5, **more):
    return Notice(rank, state, beat, step, "gradient", "header exchange", **more)


def table(*notices):
    return {told.rank: told for told in notices}
