"""How the C library's allocator keeps memory for this process. Nothing here knows what the memory is for."""

import ctypes

# The numbers are those of malloc.h in glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
# Weights are larger than this, tensors of most requests are not.
_OWN_MAPPING = 2 * 2**20
# What a heap may keep at its end. Without it each request's arrays would be given back and faulted in again.
_KEPT = 32 * 2**20


def share_arenas() -> bool:
    """Have all threads share two heaps, and have weights lie outside of them.

    Must be called before the threads start. By itself glibc gives each thread a heap, which keeps the size of its
    largest request; contention is no concern, since Python's own objects come from its own allocator. And by itself it
    puts ever larger blocks on the heaps, up to 32 MiB, once one such block has been freed: then a model that is
    unloaded leaves holes, which the system does not get back.

    Returns:
        Whether the C library took the settings; others than glibc have none such.
    """
    settings = {_M_ARENA_MAX: _ARENAS, _M_MMAP_THRESHOLD: _OWN_MAPPING, _M_TRIM_THRESHOLD: _KEPT}
    try:
        library = ctypes.CDLL(None)
        taken = [library.mallopt(name, value) for name, value in settings.items()]
    except (OSError, AttributeError):
        return False
    return all(taken)
