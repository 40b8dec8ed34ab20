"""The walls around the child process, closed before TensorFlow is imported: a SavedModel is a program.

Nothing here may import numpy or TensorFlow: leaving the network needs a process with a single thread.

What is kept out: more memory, processor time and disk than the job allows, core dumps, new privileges, surviving the
parent, and the network where the kernel permits that (its own network namespace, without even a loopback device). What
is not: reading the files that the user can read, and writing where the user can write. A container around the whole
command is still the right place for models of unknown origin.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from converter.worker.protocol import Limits

_CLONE_NEWUSER: Final = 0x10000000  # linux/sched.h
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_CPU_GRACE_SECONDS: Final = 5  # between SIGXCPU, which the parent recognises, and the kernel's SIGKILL


def close(limits: Limits, parent: int) -> str:
    """Close the sandbox around this process, which must have one thread.

    Args:
        limits: What it may use.
        parent: The process whose end this one must not survive.

    Returns:
        "denied" if there is no network any more, else "not denied: " and the reason.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, limits.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds, grace=_CPU_GRACE_SECONDS)
    if not sys.platform.startswith("linux"):
        return f"not denied: {sys.platform} has no network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked to be told
        os.kill(os.getpid(), signal.SIGKILL)
    return _leave_network(libc)


def _limit(what: int, value: int, *, grace: int = 0) -> None:
    """Lower a limit; one that is already lower stays."""
    _, hard = resource.getrlimit(what)
    ceiling = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(what, (min(value, ceiling), ceiling))


def _leave_network(libc: ctypes.CDLL) -> str:
    if threading.active_count() != 1:
        return "not denied: the process already has threads"
    if libc.unshare(_CLONE_NEWNET) == 0:
        return "denied"
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        _keep_identity(user, group)
        return "denied"
    return f"not denied: {os.strerror(ctypes.get_errno())}"


def _keep_identity(user: int, group: int) -> None:
    """Give the new user namespace the old ids, so that file owners read as before; access never depended on it."""
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        return  # ids read as "nobody"; files open all the same
