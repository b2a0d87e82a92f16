"""The ELF file inside a Linux bzImage.

`xl create` unpacks a guest's kernel anew for every domain, six seconds of an emulated CPU: so the
guests get it unpacked.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import subprocess
from pathlib import Path

from vchan_testbed.errors import TestbedError

# Linux 6.1, Documentation/x86/boot.rst, "The Real-Mode Kernel Header".
_SETUP_SECTORS = 0x1F1
_PAYLOAD = 0x248
_SECTOR_BYTES = 512
_ELF = b"\x7fELF"


def elf_of_bzimage(image: Path) -> bytes:
    """Return the kernel's ELF file. Raises TestbedError when `image` holds none."""
    data = image.read_bytes()
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = (data[_SETUP_SECTORS] + 1) * _SECTOR_BYTES + offset
    # The last four bytes are the unpacked length, put there by the kernel's build.
    elf = _unpacked(data[start : start + length - 4])
    if not elf.startswith(_ELF):
        raise TestbedError(
            f"{image.name} holds no ELF file that could be unpacked",
            next_step="its compression may be new: see guests/images/kernel.py",
        )
    return elf


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    if payload.startswith(b"BZh"):
        return bz2.decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        command = ["zstd", "--decompress", "--stdout", "--quiet"]
        return subprocess.run(command, input=payload, stdout=subprocess.PIPE, check=True).stdout
    return b""
