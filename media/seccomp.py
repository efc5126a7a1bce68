"""A seccomp filter without programs, sockets, other processes and changes to the file system (Linux, seccomp(2)).

The filter is a list of BPF instructions that the kernel runs before each system call. A refused call returns EPERM; the
process goes on, since a library may try what it can do without. Threads may start, new processes may not.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping
from typing import Final

_NUMBERS: Final = {
    # name: (x86_64, aarch64); None: the machine has no such call. From the kernel's unistd tables.
    # programs
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    # the network; the connection to the parent is open already
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # namespaces, mounts, and files that are opened without a path
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # large parts of the kernel that no decoder needs
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    # names, owners and modes of files; Landlock limits only a part of these
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "truncate": (76, 45),
}
_OWN_ONLY: Final = {"kill": (62, 129), "tgkill": (234, 131)}
"""Allowed if the first argument is the process itself: a crash handler and abort() use them."""
_LIMITS: Final = {"prlimit64": (302, 261)}
"""Allowed for the process itself, whose id may be written as 0."""
_CLONE: Final = {"clone": (56, 220)}
_CLONE3: Final = 435
"""Its flags are out of the filter's reach; ENOSYS makes the C library use clone."""
_NEWEST: Final = 462
"""The last call that was looked at (Linux 6.12); newer ones do not exist for the process, nor do those of x32."""

_MACHINES: Final = {
    # machine: (column of the tables above, AUDIT_ARCH, number of the call seccomp)
    "x86_64": (0, 0xC000003E, 317),
    "aarch64": (1, 0xC00000B7, 277),
}

_LOAD, _EQUAL, _GREATER, _AND, _RETURN = 0x20, 0x15, 0x25, 0x54, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NR, _ARCH, _FIRST_ARGUMENT = (
    0,
    4,
    16,
)  # offsets in struct seccomp_data; the low word of the argument
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000  # namespaces
_SET_MODE_FILTER, _TSYNC = 1, 1


class Unavailable(Exception):
    """The kernel or the machine lacks a protection; the message names it."""


def install() -> None:
    """Put all threads of this process, and those they will start, under the filter, for good.

    Needs PR_SET_NO_NEW_PRIVS, or a privilege.

    Raises:
        Unavailable: there are no tables for this machine, or the kernel refused.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise Unavailable(f"seccomp: system calls of {machine} are not known here")
    program = build(machine, os.getpid())
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    wanted = Program(len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_MACHINES[machine][2])
    mode, flags = ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(_TSYNC)
    if libc.syscall(number, mode, flags, ctypes.byref(wanted)) != 0:
        raise Unavailable(f"seccomp: {os.strerror(ctypes.get_errno())}")


def build(machine: str, pid: int) -> bytes:
    """Return the filter of a process: instructions of 8 bytes (struct sock_filter)."""
    column, architecture, _ = _MACHINES[machine]
    refuse, unknown = _answer(errno.EPERM), _answer(errno.ENOSYS)
    program = [_op(_LOAD, _ARCH), _op(_EQUAL, architecture, 1, 0), refuse, _op(_LOAD, _NR)]
    program += [_op(_GREATER, _NEWEST, 0, 1), unknown]
    program += [_op(_EQUAL, _CLONE3, 0, 1), unknown]
    for number in _numbers(_NUMBERS, column):
        program += [_op(_EQUAL, number, 0, 1), refuse]
    argument = _op(_LOAD, _FIRST_ARGUMENT)
    for number in _numbers(_OWN_ONLY, column):
        check = [argument, _op(_EQUAL, pid, 1, 0), refuse, _op(_RETURN, _ALLOW)]
        program += [_op(_EQUAL, number, 0, len(check)), *check]
    for number in _numbers(_LIMITS, column):
        check = [argument, _op(_EQUAL, 0, 2, 0), _op(_EQUAL, pid, 1, 0), refuse]
        check.append(_op(_RETURN, _ALLOW))
        program += [_op(_EQUAL, number, 0, len(check)), *check]
    for number in _numbers(_CLONE, column):
        check = [argument, _op(_AND, _CLONE_THREAD | _CLONE_NEW), _op(_EQUAL, _CLONE_THREAD, 1, 0)]
        check += [refuse, _op(_RETURN, _ALLOW)]
        program += [_op(_EQUAL, number, 0, len(check)), *check]
    return b"".join([*program, _op(_RETURN, _ALLOW)])


def _numbers(table: Mapping[str, tuple[int, int | None]], column: int) -> list[int]:
    return [number for row in table.values() if (number := row[column]) is not None]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; jumps are counted from the next one."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _answer(number: int) -> bytes:
    """Refuse with an error."""
    return _op(_RETURN, _ERROR | number)
