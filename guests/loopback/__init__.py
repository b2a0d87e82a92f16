"""The loopback host: the unmodified libxenvchan between two processes, without Xen.

Stand-ins for libxenevtchn, libxengnttab and libxenstore, written here, with the semantics of the
real ones as far as libxenvchan can see them. For tests and development; never called real.

Where they differ from Xen and Linux, knowingly:

- Port numbers and grant references are counted per host, not per domain.
- The own domain as a peer is refused with EINVAL; Xen lets it through, and kernels have crashed.
- A page that a server unmapped by munmap alone stays granted until its handle is closed.
- A handle belongs to the process that opened it, not to its forked children.
- What the kernel does at a process's death, the guardian does just after it.
- A process that is killed in the middle of ending a transaction leaves half of it.
- Domains do not die: a dead process's xenstore keys stay, as on Xen, and so does its domain.
- A watch tells the path that it was made for, not that of the node that changed, and its fd does
  not tell of it; what changes meanwhile is told once.
- No virtual interrupts, no grant copy, no dma-buf.
"""

from vchan_testbed.guests.loopback.build import build_standins
from vchan_testbed.guests.loopback.world import DOMID_MAX, LoopbackWorld

__all__ = ["DOMID_MAX", "LoopbackWorld", "build_standins"]
