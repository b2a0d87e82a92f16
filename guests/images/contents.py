"""What goes into each image."""

from __future__ import annotations

from dataclasses import dataclass

XEN = "4.17"
XEN_TOOLS = f"/usr/lib/xen-{XEN}/bin"
PYTHON = "/usr/lib/python3.11"
PACKAGES = "/usr/lib/python3/dist-packages"
OWN = "/usr/lib/vchan-testbed"

DEVICE_MODULES = ("xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs")

# Parts of the standard library that neither the helper nor the agent can come to need.
WITHOUT = (
    "config-3*",
    "test",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "tkinter",
    "turtle*",
    "distutils",
    "sqlite3",
    "venv",
    "wsgiref",
    "curses",
    "dbm",
    "lib-dynload/_sqlite3*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm*",
    "lib-dynload/_gdbm*",
    "lib-dynload/readline*",
    "lib-dynload/_codecs_*",
    "lib-dynload/_test*",
    "lib-dynload/_xx*",
)
# OpenSSL and Kerberos come along with these: a sixth of the guests' image.
WITHOUT_IN_GUESTS = (
    "lib-dynload/_ssl*",
    "lib-dynload/_hashlib*",
    "lib-dynload/nis*",
    "lib-dynload/_crypt*",
)

UNPACKED_MIB_MAX = 42
"""What the guests' image may unpack to: half of what the smallest guest (160 MiB) has when its
kernel is up. One that is larger is unpacked in part, and only the guest's console says so."""


@dataclass(frozen=True)
class Contents:
    """What an image takes out of the root (paths and patterns there)."""

    programs: tuple[str, ...]
    """Programs and libraries; the shared libraries they need come along."""
    trees: tuple[str, ...]
    """Whole folders."""
    modules: tuple[str, ...]
    """Kernel modules; those they need come along."""
    folders: tuple[str, ...]
    """Empty folders."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links: name, target."""
    without: tuple[str, ...] = WITHOUT
    """Patterns of what is left out of the trees."""


_PYTHON_PROGRAMS = (
    "/usr/bin/python3.11",
    "/usr/bin/busybox",
    f"{PACKAGES}/_cffi_backend.*.so",
    f"/usr/lib/x86_64-linux-gnu/libxenvchan.so.{XEN}",
    # for the tracer
    "/usr/lib/x86_64-linux-gnu/libZydis.so.4.0",
)
_FOLDERS = ("/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var/log", "/etc")
_LINKS = (
    ("/var/run", "/run"),
    ("/usr/bin/sh", "busybox"),
    ("/usr/bin/python3", "python3.11"),
    ("/init", "usr/bin/busybox"),
)

DOMU = Contents(
    programs=_PYTHON_PROGRAMS,
    trees=(PYTHON,),
    modules=(*DEVICE_MODULES, "xen-netfront"),
    folders=_FOLDERS,
    links=_LINKS,
    without=(*WITHOUT, *WITHOUT_IN_GUESTS),
)

_XEN_PROGRAMS = ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "lsevtchn")

DOM0 = Contents(
    programs=(
        *_PYTHON_PROGRAMS,
        *(f"{XEN_TOOLS}/{name}" for name in _XEN_PROGRAMS),
        # What xl starts to save and to restore a domain.
        f"{XEN_TOOLS}/libxl-save-helper",
        "/usr/bin/xenstore*",
        # libxl loads it by name when it ends a thread: without it `xl create` aborts (134)
        # after it made the domain.
        "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "/usr/sbin/sshd",
        "/usr/bin/ssh-keygen",
    ),
    trees=(PYTHON,),
    modules=(
        *DEVICE_MODULES,
        "xen-netback",
        "bridge",
        "virtio_pci",
        "virtio_console",
        "virtio_net",
    ),
    folders=(
        *_FOLDERS,
        "/etc/xen",
        "/run/sshd",
        "/var/lib/xen",
        "/var/lib/xenstored",
        "/var/log/xen",
        "/root/.ssh",
    ),
    links=(
        *_LINKS,
        *((f"/usr/sbin/{name}", f"../lib/xen-{XEN}/bin/{name}") for name in _XEN_PROGRAMS),
    ),
)
