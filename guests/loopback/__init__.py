"""The loopback host: the unmodified libxenvchan between two processes, without Xen.

Stand-ins for libxenevtchn, libxengnttab and libxenstore, written here, with the semantics of the
real ones as far as libxenvchan can see them. For tests and development; never called real.
"""

from vchan_testbed.guests.loopback.build import build_standins
from vchan_testbed.guests.loopback.world import DOMID_MAX, LoopbackWorld

__all__ = ["DOMID_MAX", "LoopbackWorld", "build_standins"]
