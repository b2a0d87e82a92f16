"""Every instruction that the tracer's decoder knows, as text, with all widths and operands."""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.tracer.layout import Kind, Op

CARRY, PARITY, ADJUST, ZERO, SIGN, OVERFLOW = 0x001, 0x004, 0x010, 0x040, 0x080, 0x800
ARITHMETIC = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW
SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}
NAMES = [f"r{each}" for each in ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *range(8, 16))]
MEMORY = ("(%rbx)", "0x16(%rbx)", "0x400(%rbp)", "(%r13)", "-4(%r12,%rcx,4)", "0x10(,%rbx,1)")
CONDITIONS = (
    "o",
    "no",
    "b",
    "ae",
    "e",
    "ne",
    "be",
    "a",
    "s",
    "ns",
    "p",
    "np",
    "l",
    "ge",
    "le",
    "g",
)


class Registers(ctypes.Structure):
    _fields_ = [("general", ctypes.c_uint64 * 16), ("flags", ctypes.c_uint64)]


@dataclass(frozen=True)
class Form:
    """An instruction, the width of its operand in memory, how it is logged."""

    text: str
    width: int
    kind: Kind
    op: Op = Op.NONE
    undefined: int = 0
    """Flags that the processor's manual leaves open."""


def name(register: str, width: int) -> str:
    """`rax` as `%al`, `%ax`, `%eax` or `%rax`."""
    if width == 8:
        return f"%{register}"
    if register[1].isdigit():
        return f"%{register}{ {1: 'b', 2: 'w', 4: 'd'}[width] }".replace(" ", "")
    if width == 1:
        return "%" + (register[1] + "l" if register[2] == "x" else register[1:] + "l")
    return "%" + ("e" if width == 4 else "") + register[1:]


def forms() -> Iterator[Form]:
    """All forms with all widths, with memory operands and registers taken in turn."""
    places = itertools.cycle(MEMORY)
    registers = itertools.cycle([each for each in NAMES if each != "rsp"])
    for _, width in itertools.product(range(7), SUFFIX):
        s = SUFFIX[width]
        yield from moves(width, s, places, registers)
        yield from arithmetic(width, s, places, registers)
        yield from exchanges(width, s, places, registers)


def moves(width: int, s: str, places: Iterator[str], registers: Iterator[str]) -> Iterator[Form]:
    def reg(size: int = width) -> str:
        return name(next(registers), size)

    value = random.Random(width).randrange(-(1 << (8 * min(width, 4) - 1)), 1 << 7)
    yield Form(f"mov{s} {next(places)}, {reg()}", width, Kind.LOAD)
    yield Form(f"mov{s} {reg()}, {next(places)}", width, Kind.STORE, Op.MOV)
    yield Form(f"mov{s} ${value}, {next(places)}", width, Kind.STORE, Op.MOV)
    for wide in (each for each in (2, 4, 8) if each > width):
        if width < 4:
            yield Form(f"movz{s}{SUFFIX[wide]} {next(places)}, {reg(wide)}", width, Kind.LOAD)
        if (width, wide) != (4, 2):
            yield Form(f"movs{s}{SUFFIX[wide]} {next(places)}, {reg(wide)}", width, Kind.LOAD)
    for condition in CONDITIONS:
        if width > 1:
            yield Form(f"cmov{condition} {next(places)}, {reg()}", width, Kind.LOAD)
        yield Form(f"set{condition} {next(places)}", 1, Kind.STORE, Op.MOV)
    yield Form(f"stos{s}", width, Kind.STORE, Op.MOV)
    if width == 1:
        for high in ("ah", "ch", "dh", "bh"):
            yield Form(f"movb %{high}, 4(%rbx)", 1, Kind.STORE, Op.MOV)
            yield Form(f"movb 4(%rbx), %{high}", 1, Kind.LOAD)
            yield Form(f"addb %{high}, 4(%rbx)", 1, Kind.RMW_PLAIN, Op.ADD)
            yield Form(f"xchgb %{high}, 4(%rbx)", 1, Kind.RMW_LOCKED, Op.XCHG)
            yield Form(f"lock cmpxchgb %{high}, 4(%rbx)", 1, Kind.CMPXCHG_OK)


def arithmetic(
    width: int, s: str, places: Iterator[str], registers: Iterator[str]
) -> Iterator[Form]:
    def reg() -> str:
        return name(next(registers), width)

    two = {"add": Op.ADD, "or": Op.OR, "adc": Op.ADD, "sbb": Op.SUB}
    two |= {"and": Op.AND, "sub": Op.SUB, "xor": Op.XOR}
    one = {"inc": Op.INC, "dec": Op.DEC, "not": Op.XOR, "neg": Op.NONE}
    bits = {"bts": Op.OR, "btr": Op.AND, "btc": Op.XOR}
    for lock, kind in (("", Kind.RMW_PLAIN), ("lock ", Kind.RMW_LOCKED)):
        for word, op in two.items():
            undefined = ADJUST if word in ("or", "and", "xor") else 0
            yield Form(f"{lock}{word}{s} {reg()}, {next(places)}", width, kind, op, undefined)
            yield Form(f"{lock}{word}{s} $-3, {next(places)}", width, kind, op, undefined)
            yield Form(f"{lock}{word}{s} $77, {next(places)}", width, kind, op, undefined)
            if width > 1:
                large = 0x1234 if width == 2 else 0x12345678
                yield Form(f"{lock}{word}{s} ${large}, {next(places)}", width, kind, op, undefined)
        for word, op in one.items():
            yield Form(f"{lock}{word}{s} {next(places)}", width, kind, op)
        for word, op in bits.items():
            if width > 1:
                open_flags = OVERFLOW | SIGN | ADJUST | PARITY
                yield Form(f"{lock}{word}{s} $13, {next(places)}", width, kind, op, open_flags)
    for word in (*two, "cmp"):
        undefined = ADJUST if word in ("or", "and", "xor") else 0
        yield Form(f"{word}{s} {next(places)}, {reg()}", width, Kind.LOAD, Op.NONE, undefined)
    yield Form(f"cmp{s} {reg()}, {next(places)}", width, Kind.LOAD)
    yield Form(f"cmp{s} $-2, {next(places)}", width, Kind.LOAD)
    yield Form(f"test{s} {reg()}, {next(places)}", width, Kind.LOAD, Op.NONE, ADJUST)
    yield Form(f"test{s} $0x41, {next(places)}", width, Kind.LOAD, Op.NONE, ADJUST)
    if width > 1:
        open_flags = OVERFLOW | SIGN | ADJUST | PARITY
        yield Form(f"bt{s} $5, {next(places)}", width, Kind.LOAD, Op.NONE, open_flags)


def exchanges(
    width: int, s: str, places: Iterator[str], registers: Iterator[str]
) -> Iterator[Form]:
    def reg() -> str:
        return name(next(registers), width)

    yield Form(f"xchg{s} {reg()}, {next(places)}", width, Kind.RMW_LOCKED, Op.XCHG)
    yield Form(f"lock xchg{s} {reg()}, {next(places)}", width, Kind.RMW_LOCKED, Op.XCHG)
    yield Form(f"xadd{s} {reg()}, {next(places)}", width, Kind.RMW_PLAIN, Op.ADD)
    yield Form(f"lock xadd{s} {reg()}, {next(places)}", width, Kind.RMW_LOCKED, Op.ADD)
    yield Form(f"lock cmpxchg{s} {reg()}, {next(places)}", width, Kind.CMPXCHG_OK)
    yield Form(f"cmpxchg{s} {reg()}, {next(places)}", width, Kind.CMPXCHG_OK)


FORMS = list({form.text: form for form in forms()}.values())

ODD_FORMS = {
    "andn 4(%r13), %rcx, %rdx": "bmi1",
    "andn -4(%r12,%rcx,4), %ecx, %eax": "bmi1",
    "bextr %ecx, 0x400(%rbp), %eax": "bmi1",
    "shlx %rcx, (%rbx), %rdx": "bmi2",
    "sarx %eax, 8(%r12), %r9d": "bmi2",
    "rorx $5, (%r13), %r10": "bmi2",
    "shll $3, 0x16(%rbx)": "",
    "rolb %cl, 5(%r12)": "",
    "rcrq $1, (%r13,%rcx,8)": "",
    "shldl $3, %eax, (%rbx)": "",
    "imulq (%rbx), %rax": "",
    "imull $77, 4(%r13), %r11d": "",
    "mulq (%rbx)": "",
    "mulb 3(%r12)": "",
    "popcntl (%rbx), %r8d": "popcnt",
    "tzcntq 8(%rbp), %rax": "bmi1",
    "bsrl (%rbx), %eax": "",
    "movbe (%rbx), %r15": "movbe",
    "movbe %r9d, 8(%rbp)": "movbe",
    "movq %rax, %xmm0\nmovups %xmm0, 0x10(%rbx)": "",
    "movq %rdx, %xmm3\nmovdqu %xmm3, 4(%r13)": "",
    "movups 1(%rbx), %xmm1\nmovq %xmm1, %rdx": "",
    "movq (%r12,%rcx,2), %xmm9\nmovq %xmm9, %r9": "",
    "movd %ecx, %xmm2\nmovd %xmm2, 6(%rbx)": "",
    "vmovdqu 3(%rbx), %ymm1\nvmovdqu %ymm1, 64(%r13)\nvzeroupper": "avx",
    "cmpxchg8b 8(%rbx)": "",
    "nopl (%rbx)\nnopw 8(%rbx,%rcx)\nprefetcht0 (%rbx)\nincl (%rbx)": "",
    "movl (%rbx), %ebx\nxorl %eax, %eax\nshll $1, 0x20(%rbp)": "",
    "fildl (%rbx)\nfistpl 4(%r12)": "",
}
"""Instructions that the emulation does not know, with what the processor needs for them."""


def known_odd_forms() -> list[str]:
    """Those that this processor has."""
    text = Path("/proc/cpuinfo").read_text()
    flags = text.partition("\nflags")[2].partition("\n")[0].split()
    return [form for form, needs in ODD_FORMS.items() if not needs or needs in flags]
