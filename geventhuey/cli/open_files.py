"""How many files and sockets a process may have open: hundreds of greenlets need more than many systems give at first."""

from __future__ import annotations

import resource


def allow_open_files(count: int) -> int:
    """This process, and those that it starts, may open so many files, or as many as the system lets it; answers how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):           # a limit of the system's own, which the hard limit does not show
        return soft
    return wanted
