"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Cores that the scheduler gives to this process; all of the machine's where that cannot be asked; at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
