"""Make a guest fault thrice: runs in dom0, on its Python.

    python3 - DOMID <triple_fault.py

A processor that can find no handler for an interrupt, nor one for that, shuts down. So a PVH
guest's interrupt table is given no entries, as a debugger would do it: with the guest's processor
state out of Xen and back into it.
"""

from __future__ import annotations

import ctypes
import struct
import sys

CPU = 2
"""HVM_SAVE_CODE(CPU), and the place of idtr_limit in struct hvm_hw_cpu (Xen 4.17 hvm/save.h)."""
IDTR_LIMIT_OFFSET = 800
DESCRIPTOR = struct.Struct("<HHI")


def main() -> None:
    """Change all virtual processors of the domain."""
    domid = int(sys.argv[1])
    xen = ctypes.CDLL("libxenctrl.so.4.17")
    xen.xc_interface_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(xen.xc_interface_open(None, None, 0))
    done(xen.xc_domain_pause(handle, domid))
    state = ctypes.create_string_buffer(done(xen.xc_domain_hvm_getcontext(handle, domid, None, 0)))
    size = done(xen.xc_domain_hvm_getcontext(handle, domid, state, len(state)))
    at = changed = 0
    while at < size:
        code, _, length = DESCRIPTOR.unpack_from(state, at)
        at += DESCRIPTOR.size
        if code == CPU:
            struct.pack_into("<I", state, at + IDTR_LIMIT_OFFSET, 0)
            changed += 1
        at += length
    done(xen.xc_domain_hvm_setcontext(handle, domid, state, size))
    done(xen.xc_domain_unpause(handle, domid))
    print(f"{changed} virtual processors of domain {domid} have no interrupt table any more")


def done(result: int) -> int:
    """What a call returned, which must not be an error."""
    if result < 0:
        sys.exit(f"a call of libxenctrl failed: {result}")
    return result


main()
