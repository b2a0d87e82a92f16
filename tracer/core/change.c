#include "change.h"

#include "quiet.h"

/* The instruction on a copy of the cell: all of it happens but to the page. */
static void do_aside(const struct vt_instruction *instruction, struct vt_registers *registers,
                     uint64_t value, struct vt_access *access)
{
    uint64_t copy = value;

    vt_emulate(instruction, registers, &copy, access);
    /* What a store overwrote is known here, whatever the manner. */
    access->old = access->kind == VT_STORE ? value : access->old;
    access->flags &= (uint16_t)~VT_FLAG_OLD_UNKNOWN;
}

static void drop(const struct vt_instruction *instruction, struct vt_registers *registers,
                 void *cell, struct vt_access *access, uint64_t *in_page)
{
    *in_page = vt_peek(cell, instruction->width);
    do_aside(instruction, registers, *in_page, access);
}

/* The second time from the same registers: an addend is added once more. */
static void repeat(const struct vt_instruction *instruction, struct vt_registers *registers,
                   void *cell, struct vt_access *access, uint64_t *in_page)
{
    struct vt_registers again = *registers;
    struct vt_access second;

    vt_emulate(instruction, registers, cell, access);
    second.kept = access->kept;
    vt_emulate(instruction, &again, cell, &second);
    *in_page = second.new_;
}

static void corrupt_load(const struct vt_effect *effect, const struct vt_instruction *instruction,
                         struct vt_registers *registers, void *cell, struct vt_access *access,
                         uint64_t *in_page)
{
    *in_page = vt_peek(cell, instruction->width);
    do_aside(instruction, registers, vt_inject_corrupted(effect, instruction->width, *in_page),
             access);
}

/* As one step, so that no update of the peer's is lost by it. */
static void corrupt_store(const struct vt_effect *effect, const struct vt_instruction *instruction,
                          struct vt_registers *registers, void *cell, struct vt_access *access,
                          uint64_t *in_page)
{
    const struct vt_registers before = *registers;
    uint64_t found = vt_peek(cell, instruction->width);

    do {
        *registers = before;
        do_aside(instruction, registers, found, access);
        if (access->kind == VT_CMPXCHG_FAIL)
            return;
        *in_page = vt_inject_corrupted(effect, instruction->width, access->new_);
    } while (!vt_compare_exchange(cell, instruction->width, &found, *in_page));
}

void vt_change(const struct vt_effect *effect, uint64_t earlier,
               const struct vt_instruction *instruction, struct vt_registers *registers, void *cell,
               struct vt_access *access, uint64_t *in_page)
{
    switch (effect->fault) {
    case VT_FAULT_DROP:
        drop(instruction, registers, cell, access, in_page);
        break;
    case VT_FAULT_REPEAT:
        repeat(instruction, registers, cell, access, in_page);
        break;
    case VT_FAULT_STALE:
        *in_page = vt_peek(cell, instruction->width);
        do_aside(instruction, registers, earlier, access);
        break;
    default:
        if (vt_is_load(instruction))
            corrupt_load(effect, instruction, registers, cell, access, in_page);
        else
            corrupt_store(effect, instruction, registers, cell, access, in_page);
    }
}
