"""How the C library's allocator keeps memory for this process. Nothing here knows what the memory is for."""

import ctypes

_M_ARENA_MAX = -8  # glibc: malloc.h
_ARENAS = 2


def share_arenas() -> bool:
    """Have all threads share two heaps; glibc would give each its own, which keeps the size of its largest request.

    Must be called before the threads start. Contention is no concern: Python's own objects come from its own allocator,
    and large arrays from the system.

    Returns:
        Whether the C library took the setting; others than glibc have none such.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS))
    except (OSError, AttributeError):
        return False
