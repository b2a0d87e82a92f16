"""What runs the processors of this host, asked of the processor itself.

A host that is reached through ssh does not say that it is a machine in QEMU, and where QEMU
emulates the processors, guests in PVH mode get lost now and then. Xen hides from dom0's kernel what
is below Xen; CPUID in dom0's user space still reaches the processor. (Xen answers in the place of
those that fault on it, and QEMU's emulated ones do not.)
"""

from __future__ import annotations

import ctypes
import mmap
import platform

TCG = "TCGTCGTCGTCG"
"""QEMU's own emulation, as it names itself."""
_LEAF = 0x4000_0000
"""Where hypervisors give their names: Intel and AMD keep this range free for them."""
_ASK = bytes.fromhex("53 89f8 31c9 0fa2 891e 894e04 895608 5b c3")
"""push rbx; mov eax, edi; xor ecx, ecx; cpuid; ebx, ecx, edx to (rsi); pop rbx; ret."""


def hypervisor_name() -> str:
    """Twelve letters; on a processor that nobody emulates or shares they mean nothing.

    Empty where this is not x86-64.
    """
    if platform.machine() != "x86_64":
        return ""
    with mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ) as code:
        code.write(_ASK)
        start = ctypes.c_char.from_buffer(code)
        try:
            ask = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(start))
            name = ctypes.create_string_buffer(12)
            ask(_LEAF, ctypes.addressof(name))
        finally:
            # An mmap with a view of it cannot be closed.
            del start
    return name.raw.decode("ascii", errors="replace")


def emulated() -> bool:
    """Whether QEMU emulates the processors."""
    return hypervisor_name() == TCG
