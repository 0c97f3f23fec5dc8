"""The descriptors of this process: how many requests its limit of open files allows, and whether any is left."""

import errno
import socket

from consumer.sending.pool import OTHER_DESCRIPTORS

NO_DESCRIPTOR = "this process may open no more files: raise its limit (ulimit -n), or lower WEBHOOK_MAX_IN_FLIGHT"


def fitting(slots: int, limit: int) -> int:
    """How many of `slots` a process that may open `limit` files can use: the rest of the program needs some too."""
    return max(1, min(slots, limit - min(OTHER_DESCRIPTORS, 3 * limit // 4)))


def none_left() -> bool:
    """Whether this process, or the system, can open no more files now."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in {errno.EMFILE, errno.ENFILE}
    return False
