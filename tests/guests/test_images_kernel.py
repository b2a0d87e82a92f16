"""Taking the ELF file out of a bzImage."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.images.kernel import elf_of_bzimage

ELF = b"\x7fELF" + bytes(range(256)) * 40
SETUP_SECTORS = 3
PAYLOAD_OFFSET = 77


def bzimage(path: Path, payload: bytes) -> Path:
    """A file with a bzImage's header around `payload`."""
    data = bytearray((SETUP_SECTORS + 1) * 512 + PAYLOAD_OFFSET)
    data[0x1F1] = SETUP_SECTORS
    packed = payload + struct.pack("<I", len(ELF))
    struct.pack_into("<II", data, 0x248, PAYLOAD_OFFSET, len(packed))
    path.write_bytes(bytes(data) + packed + b"what follows")
    return path


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_the_elf_file_comes_out(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    assert elf_of_bzimage(bzimage(tmp_path / "vmlinuz", pack(ELF))) == ELF


def test_an_unknown_compression_is_said(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="vmlinuz holds no ELF file") as caught:
        elf_of_bzimage(bzimage(tmp_path / "vmlinuz", b"????" + ELF))
    assert caught.value.next_step
