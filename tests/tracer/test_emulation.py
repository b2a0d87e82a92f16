"""The emulation of an instruction against the processor: memory, registers, flags, what is logged.

Every form that the decoder knows is assembled, run natively on one page and emulated on another,
with random registers, flags and memory.
"""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from forms import ARITHMETIC, FORMS, NAMES, Form, Registers

from vchan_testbed.tracer.layout import FaultKind, Flag, Kind, Op

CORE = Path(__file__).resolve().parents[2] / "tracer" / "core"
HERE = Path(__file__).resolve().parent
PAGE_BYTES = 4096


class Access(ctypes.Structure):
    _fields_ = [
        ("t0", ctypes.c_uint64),
        ("t1", ctypes.c_uint64),
        ("old", ctypes.c_uint64),
        ("new", ctypes.c_uint64),
        ("loaded", ctypes.c_uint64),
        ("operand", ctypes.c_uint64),
        ("kind", ctypes.c_uint8),
        ("op", ctypes.c_uint8),
        ("width", ctypes.c_uint8),
        ("flags", ctypes.c_uint16),
        ("kept", ctypes.c_bool),
    ]


REFUSED = [
    "movups %xmm0, (%rbx)",
    "movdqu (%rbx), %xmm1",
    "movq %xmm0, (%rbx)",
    "shlx %ecx, (%rbx), %eax",
    "andn (%rbx), %ecx, %eax",
    "vmovdqu (%rbx), %ymm0",
    "imul (%rbx), %eax",
    "mull (%rbx)",
    "divl (%rbx)",
    "shll $3, (%rbx)",
    "pushq (%rbx)",
    "popq (%rbx)",
    "call *(%rbx)",
    "jmp *(%rbx)",
    "incl 16(%rip)",
    "movl %fs:(%rbx), %eax",
    "addr32 movl (%ebx), %eax",
    "cmpxchg8b (%rbx)",
    "movbe (%rbx), %eax",
    "popcnt (%rbx), %eax",
    "movsl",
    "rep movsb",
    "lodsl",
    "scasb",
    "btl %eax, (%rbx)",
    "mov %eax, %ebx",
    "nop",
    "ret",
    "syscall",
    "xrelease movl $1, (%rbx)",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("native")
    sources = [HERE / "native.c", *(CORE / f"{each}.c" for each in ("decode", "alu", "emulate"))]
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"]
    subprocess.run(["cc", *options, f"-I{CORE}", *sources, "-o", folder / "native.so"], check=True)
    loaded = ctypes.CDLL(str(folder / "native.so"))
    assert loaded.native_init() == 0
    return loaded


def assemble(texts: list[str], folder: Path) -> list[bytes]:
    """The code of each instruction, with a ret behind it."""
    lines = [f".p2align 4, 0xcc\n{text}\nret" for text in texts]
    source = folder / "forms.s"
    source.write_text("\n".join(lines) + "\n.p2align 4, 0xcc\n")
    subprocess.run(["cc", "-c", source, "-o", folder / "forms.o"], check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", folder / "forms.o", folder / "forms.bin"],
        check=True,
    )
    data = (folder / "forms.bin").read_bytes()
    chunks = [data[at : at + 16].rstrip(b"\xcc") for at in range(0, len(data), 16)]
    assert len(chunks) == len(texts)
    assert all(chunk.endswith(b"\xc3") for chunk in chunks)
    return chunks


class Bench:
    """Two pages and random registers that point into the first."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.native = ctypes.create_string_buffer(PAGE_BYTES + 64)
        self.emulated = ctypes.create_string_buffer(PAGE_BYTES + 64)
        self.random = random.Random(1)

    def registers(self, form: Form) -> Registers:
        found = Registers()
        for i in range(16):
            found.general[i] = self.random.getrandbits(64)
        page = ctypes.addressof(self.native)
        for each in ("rbx", "rbp", "r13", "r12", "rdi"):
            found.general[NAMES.index(each)] = page + 8 * self.random.randrange(100)
        found.general[1] = self.random.randrange(1, 8)
        found.flags = 0x202 | self.random.getrandbits(12) & ARITHMETIC
        if form.text.startswith("stos"):
            found.flags |= self.random.choice((0, 0x400))
            found.general[7] += 64
        return found

    def fill(self, form: Form, registers: Registers) -> None:
        data = bytearray(self.random.randbytes(PAGE_BYTES + 64))
        if "cmpxchg" in form.text and self.random.random() < 0.5:
            # Everywhere what the accumulator holds, so that the exchange takes place.
            accumulator = registers.general[0].to_bytes(8, "little")[: form.width]
            data = bytearray(accumulator * (len(data) // form.width))
        ctypes.memmove(self.native, bytes(data), len(data))
        ctypes.memmove(self.emulated, bytes(data), len(data))

    def compare(self, form: Form, code: bytes, *, kept: bool = False) -> Access:
        """Run it both ways; the access as it was described."""
        real = self.registers(form)
        self.fill(form, real)
        emulated, access = Registers.from_buffer_copy(real), Access(kept=kept)
        before = self.emulated.raw
        self.library.native_execute(code, len(code), ctypes.byref(real))
        length = self.library.native_emulate(
            code, ctypes.byref(emulated), self.native, self.emulated, ctypes.byref(access)
        )
        assert length == len(code) - 1, form.text
        assert self.native.raw == self.emulated.raw, form.text
        assert list(real.general) == list(emulated.general), form.text
        defined = ARITHMETIC & ~form.undefined
        assert real.flags & defined == emulated.flags & defined, form.text
        self.check_description(form, access, before)
        return access

    def check_description(self, form: Form, access: Access, before: bytes) -> None:
        kind = form.kind
        if kind == Kind.CMPXCHG_OK and access.kind == Kind.CMPXCHG_FAIL:
            kind = Kind.CMPXCHG_FAIL
        assert (access.kind, access.op, access.width) == (kind, form.op, form.width), form.text
        if access.kept:
            assert access.t0 == access.t1 == 0
            assert access.flags == (Flag.OLD_UNKNOWN if kind == Kind.STORE else 0)
        else:
            assert access.t0 < access.t1
            assert access.flags == 0
        after = self.emulated.raw
        changed = [at for at in range(len(after)) if before[at] != after[at]]
        if kind in (Kind.LOAD, Kind.CMPXCHG_FAIL):
            assert not changed
            assert access.old == access.new
        elif changed:
            start = max(0, changed[-1] - form.width + 1)
            candidates = range(start, changed[0] + 1)
            values = {
                tuple(
                    int.from_bytes(page[at : at + form.width], "little") for page in (before, after)
                )
                for at in candidates
            }
            if access.flags & Flag.OLD_UNKNOWN:
                assert access.new in {new for _, new in values}, form.text
            else:
                assert (access.old, access.new) in values, form.text
        elif not access.flags & Flag.OLD_UNKNOWN:
            assert access.old == access.new


def applied(access: Access) -> int:
    """What an RMW's record says that it left."""
    mask = (1 << (8 * access.width)) - 1
    old, operand = access.old, access.operand
    result = {
        Op.OR: old | operand,
        Op.AND: old & operand,
        Op.ADD: old + operand,
        Op.SUB: old - operand,
        Op.XOR: old ^ operand,
        Op.XCHG: operand,
        Op.INC: old + 1,
        Op.DEC: old - 1,
    }[Op(access.op)]
    return int(result & mask)


@pytest.mark.parametrize("kept", [False, True], ids=["full", "kept"])
def test_every_form_does_what_the_processor_does(
    library: ctypes.CDLL, tmp_path: Path, kept: bool
) -> None:
    assert len(FORMS) > 1500
    bench = Bench(library)
    seen: Counter[tuple[int, int]] = Counter()
    for form, code in zip(FORMS, assemble([form.text for form in FORMS], tmp_path), strict=True):
        for _ in range(6):
            access = bench.compare(form, code, kept=kept)
            seen[access.kind, access.op] += 1
            if access.kind in (Kind.RMW_LOCKED, Kind.RMW_PLAIN) and access.op != Op.NONE:
                assert applied(access) == access.new, form.text
    kinds = {kind for kind, _ in seen}
    assert kinds == set(range(Kind.LOAD, Kind.CMPXCHG_FAIL + 1))
    assert {op for _, op in seen} == set(Op)


def test_what_is_not_known_is_refused(library: ctypes.CDLL, tmp_path: Path) -> None:
    registers, page, access = Registers(), ctypes.create_string_buffer(PAGE_BYTES), Access()
    registers.general[3] = ctypes.addressof(page)
    for text, code in zip(REFUSED, assemble(REFUSED, tmp_path), strict=True):
        result = library.native_emulate(
            code, ctypes.byref(registers), page, page, ctypes.byref(access)
        )
        assert result == 0, text


def test_padding_prefixes_change_nothing(library: ctypes.CDLL) -> None:
    bench = Bench(library)
    form = Form("movl %eax, (%rbx)", 4, Kind.STORE, Op.MOV)
    for prefix in (b"\x2e", b"\x3e", b"\x2e\x2e\x3e", b"\x40", b"\x26\x36\x40"):
        bench.compare(form, prefix + b"\x89\x03\xc3")


def test_endless_prefixes_are_refused(library: ctypes.CDLL) -> None:
    registers, access = Registers(), Access()
    code = b"\x2e" * 14 + b"\x89\x03\xc3"
    assert library.native_emulate(code, ctypes.byref(registers), code, code, access) == 0


def test_random_bytes_never_make_the_decoder_read_too_far(library: ctypes.CDLL) -> None:
    registers, access = Registers(), Access()
    page = ctypes.create_string_buffer(PAGE_BYTES)
    source = random.Random(3)
    refused = 0
    for _ in range(20000):
        code = source.randbytes(16)
        # The operand is nowhere near the page, so nothing is done: only the decoder works.
        result = library.native_emulate(
            code, ctypes.byref(registers), page, page, ctypes.byref(access)
        )
        assert result in (-1, 0)
        refused += result == 0
    assert 0 < refused < 20000


@pytest.mark.parametrize(
    ("code", "locked"), [(b"\xf0\xff\x03", True), (b"\xff\x03", False)], ids=["lock inc", "inc"]
)
def test_two_threads_on_one_cell(library: ctypes.CDLL, code: bytes, locked: bool) -> None:
    count = 20000
    cell = ctypes.c_uint32(0)
    log = (Access * (2 * count))()
    assert library.native_race(code, ctypes.byref(cell), log, count) == 0
    # Whatever was overwritten is in the log: the values chain from 0 to the last one.
    olds = Counter(access.old for access in log)
    news = Counter(access.new for access in log)
    assert olds + Counter({cell.value: 1}) == news + Counter({0: 1})
    lost = sum(bool(access.flags & Flag.LOST_UPDATE) for access in log)
    if locked:
        assert cell.value == 2 * count
        assert lost == 0
    else:
        assert all(
            bool(access.flags & Flag.LOST_UPDATE) == (access.old != access.loaded) for access in log
        )
        assert (lost == 0) == (cell.value == 2 * count)


def test_the_c_numbers_are_the_drawn_numbers() -> None:
    text = (CORE / "record.h").read_text()
    numbers = dict(re.findall(r"^\s+VT_(\w+) = (\d+),", text, re.MULTILINE))
    numbers |= dict(re.findall(r"^#define VT_(\w+) (\d+)$", text, re.MULTILINE))
    for kind in Kind:
        assert int(numbers[kind.name]) == kind
    for op in Op:
        assert int(numbers[f"OP_{op.name}"]) == op
    for flag in Flag:
        assert int(numbers[f"FLAG_{flag.name}"]) == flag
    for fault in FaultKind:
        assert int(numbers[f"FAULT_{fault.name}"]) == fault
