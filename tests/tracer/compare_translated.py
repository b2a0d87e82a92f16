"""Compare each form as it is with its translation: FOLDER, with the tracer's core as core.so in it.

Runs in a process of its own, because what it loads goes by libxenvchan's name. Prints JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forms import ARITHMETIC, FORMS, NAMES, Form, Registers, known_odd_forms

from vchan_testbed.tracer.layout import Kind

PAGE_BYTES = 4096
ROUNDS = 4
POINTERS = ("rbx", "rbp", "r13", "r12", "rdi")
ODD = [Form(text, 8, Kind.LOAD) for text in known_odd_forms()]
RED_ZONE = """\
    movq %rdi, -8(%rsp)
    movq %rsi, -128(%rsp)
    movl (%rbx), %eax
    movl %eax, 4(%rbx)
    movq -8(%rsp), %r8
    movq -128(%rsp), %r9
"""


def build(folder: Path) -> ctypes.CDLL:
    """The library of all forms."""
    bodies = [*(form.text for form in FORMS), RED_ZONE, *(form.text for form in ODD)]
    functions = [
        f".globl form{n}\n.type form{n}, @function\nform{n}:\n.cfi_startproc\n{body}\nret\n"
        f".cfi_endproc\n.size form{n}, . - form{n}\n.p2align 4, 0xcc\n"
        for n, body in enumerate(bodies)
    ]
    source, library = folder / "forms.s", folder / "libxenvchan.so.0"
    source.write_text(
        ".text\n.p2align 4\n" + "".join(functions) + '.section .note.GNU-stack,"",@progbits\n'
    )
    command = ["cc", "-shared", "-nostdlib", "-Wl,-soname,libxenvchan.so.0", "-Wl,--eh-frame-hdr"]
    subprocess.run([*command, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


class Bench:
    """A page, its decoy, and memory elsewhere."""

    def __init__(self, core: ctypes.CDLL, forms: ctypes.CDLL) -> None:
        self.core, self.forms = core, forms
        self.random = random.Random(5)
        self.map = mmap.mmap(-1, 2 * PAGE_BYTES)
        self.page = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.elsewhere = self.page + PAGE_BYTES
        error = core.forms_init(ctypes.c_void_p(self.page))
        assert error == 0, error
        core.forms_decoy.restype = ctypes.c_void_p
        core.forms_leads_back.restype = ctypes.c_bool
        self.decoy = int(core.forms_decoy())

    def address(self, number: int) -> ctypes.c_void_p:
        return ctypes.cast(getattr(self.forms, f"form{number}"), ctypes.c_void_p)

    def registers(self, form: Form, at: int) -> Registers:
        found = Registers()
        for i in range(16):
            found.general[i] = self.random.getrandbits(64)
        for each in POINTERS:
            found.general[NAMES.index(each)] = at + 128 + 8 * self.random.randrange(100)
        found.general[1] = self.random.randrange(1, 8)
        found.flags = 0x202 | self.random.getrandbits(12) & ARITHMETIC
        return found

    def run(self, number: int, at: int, registers: Registers, translated: bool) -> None:
        self.core.forms_run(self.address(number), translated, ctypes.byref(registers))

    def data(self, form: Form, registers: Registers) -> bytes:
        if "cmpxchg" in form.text and self.random.random() < 0.5:
            accumulator = registers.general[0].to_bytes(8, "little")[: form.width]
            return bytes(accumulator * (PAGE_BYTES // form.width))
        return self.random.randbytes(PAGE_BYTES)

    def agrees(self, number: int, form: Form, at: int) -> bool:
        """Run it both ways on what is at the address; whether all is the same behind it."""
        before = self.registers(form, at)
        data = self.data(form, before)
        real, copied = (Registers.from_buffer_copy(before) for _ in range(2))
        assert self.core.forms_open(True) == 0
        ctypes.memmove(at, data, PAGE_BYTES)
        self.run(number, at, real, translated=False)
        left = ctypes.string_at(at, PAGE_BYTES)
        holds = self.page if at == self.decoy else at
        ctypes.memmove(holds, data, PAGE_BYTES)
        assert self.core.forms_open(False) == 0
        self.run(number, at, copied, translated=True)
        defined = ARITHMETIC & ~form.undefined
        return (
            list(real.general) == list(copied.general)
            and real.flags & defined == copied.flags & defined
            and left == ctypes.string_at(holds, PAGE_BYTES)
        )

    def keeps_red_zone(self) -> bool:
        registers = Registers()
        registers.general[NAMES.index("rbx")] = self.decoy
        first, last = self.random.getrandbits(64), self.random.getrandbits(64)
        registers.general[NAMES.index("rdi")] = first
        registers.general[NAMES.index("rsi")] = last
        registers.flags = 0x202
        self.run(len(FORMS), self.decoy, registers, translated=True)
        kept = (registers.general[NAMES.index("r8")], registers.general[NAMES.index("r9")])
        return kept == (first, last)

    def keeps_vectors(self) -> bool:
        words = ctypes.c_uint64 * 64
        before, other, after = (words() for _ in range(3))
        for place in range(64):
            before[place] = self.random.getrandbits(64)
        self.core.forms_aside(before, other, after)
        # Without AVX only every lower half is there.
        halves = [place for place in range(64) if after[place] or place % 4 < 2]
        return all(before[place] == after[place] for place in halves)


def main() -> None:
    """Compare all."""
    folder = Path(sys.argv[1])
    forms = build(folder)
    bench = Bench(ctypes.CDLL(str(folder / "core.so")), forms)
    core = bench.core
    differ: dict[str, list[str]] = {"on a decoy": [], "elsewhere": []}
    numbered = [*enumerate(FORMS), *enumerate(ODD, start=len(FORMS) + 1)]
    for number, form in numbered:
        for where, at in (("on a decoy", bench.decoy), ("elsewhere", bench.elsewhere)):
            if not all(bench.agrees(number, form, at) for _ in range(ROUNDS)):
                differ[where].append(form.text)
    lines = [line for form in ODD for line in form.text.splitlines()]
    odd_accesses = sum("(%" in line and line.split()[0] not in NO_ACCESS for line in lines)
    untranslated = [form for form in FORMS if form.text.startswith("stos")]
    found = {
        "forms": len(FORMS) + 1 + len(ODD),
        "odd forms": len(ODD),
        "functions": core.forms_translated(),
        "refused": core.forms_refused(),
        "sites": core.forms_sites(),
        "expected_sites": len(FORMS) - len(untranslated) - EXTRA + 2 + odd_accesses,
        "astray": [
            form.text
            for number, form in numbered
            if not core.forms_leads_back(bench.address(number))
        ],
        **{f"differ {where}": texts for where, texts in differ.items()},
        "red zone": bench.keeps_red_zone(),
        "vectors": bench.keeps_vectors(),
    }
    print(json.dumps(found))


NO_ACCESS = ("nopl", "nopw", "prefetcht0")
EXTRA = sum("(,%rbx,1)" in form.text and not form.text.startswith("stos") for form in FORMS)
"""Forms without a base register, which no compiler makes of a pointer: they fault."""

if __name__ == "__main__":
    main()
