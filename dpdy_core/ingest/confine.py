"""What a process may no longer do once it reads a stranger's file. Linux first; elsewhere only the resource limits.

The only module that the child imports before it is confined: standard library, no threads.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

MAX_CORES = 8  # decoders start threads, and need memory, by the number of cores
MAX_OPEN_FILES = 256

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | 13  # SECCOMP_RET_ERRNO with EACCES
_X32 = 0x40000000

# socket, execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup
_FORBIDDEN = {
    "x86_64": (0xC000003E, (41, 59, 322, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, (198, 221, 281, 117, 270, 271, 425)),
}


def confine(parent: int, memory: int, seconds: int, file_bytes: int) -> list[str]:
    """Give up the network, other programs and all but these resources; what could not be given up, in words.

    `parent` is the process with which this one dies; `memory` bytes of its own, `seconds` of wall clock (on all cores),
    `file_bytes` of one written file. Must run before any other thread is started.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:MAX_CORES])
    missing = _close_network() if sys.platform == "linux" else ["the network could not be closed: not Linux"]
    cpu = seconds * MAX_CORES
    _limit(resource.RLIMIT_DATA, memory)  # private writable memory: libraries and mapped files do not count
    _limit(resource.RLIMIT_AS, memory + 4 * 2**30)  # for kernels whose RLIMIT_DATA sees the heap only
    _limit(resource.RLIMIT_CPU, cpu, cpu + 5)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":  # after the change of credentials, which forgets it
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return missing


def _close_network() -> list[str]:
    """An empty network namespace, and no way to make sockets; either is enough."""
    libc = ctypes.CDLL(None, use_errno=True)
    apart = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    reason = "" if apart else os.strerror(ctypes.get_errno())
    if _forbid_calls() or apart:
        return []
    return [f"the network could not be closed: no namespace ({reason}), no seccomp filter"]


def _forbid_calls() -> bool:
    """A seccomp filter under which sockets, other programs and other processes' memory are out of reach."""
    known = _FORBIDDEN.get(os.uname().machine)
    if known is None:
        return False
    architecture, calls = known
    refuse = 3 + len(calls)  # place of the refusing instruction, counted from the number's load
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 0, refuse, architecture), (_LOAD, 0, 0, 0), (_AT_LEAST, refuse - 2, 0, _X32)]
    code += [(_EQUAL, refuse - 3 - i, 0, call) for i, call in enumerate(calls)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(head))


def _prctl(option: int, value: int, extra: int = 0) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(extra), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0


def _limit(which: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    ceiling = resource.getrlimit(which)[1]

    def allowed(value: int) -> int:
        return value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)

    resource.setrlimit(which, (allowed(soft), allowed(soft if hard is None else hard)))
