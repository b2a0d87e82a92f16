#include "emulate.h"

#include <stdbool.h>

#include "clock.h"
#include "quiet.h"

static uint64_t stamp_before(const struct vt_access *access)
{
    return access->kept ? 0 : vt_stamp_before();
}

static uint64_t stamp_after(const struct vt_access *access)
{
    return access->kept ? 0 : vt_stamp_after();
}

static uint64_t mask_of(unsigned width)
{
    return width == 8 ? ~0ull : (1ull << (8 * width)) - 1;
}

uint64_t vt_peek(const void *cell, unsigned width)
{
    switch (width) {
    case 1:
        return __atomic_load_n((const uint8_t *)cell, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)cell, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)cell, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)cell, __ATOMIC_RELAXED);
    }
}

static void store(void *cell, unsigned width, uint64_t value)
{
    switch (width) {
    case 1:
        __atomic_store_n((uint8_t *)cell, (uint8_t)value, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((uint16_t *)cell, (uint16_t)value, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)cell, (uint32_t)value, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((uint64_t *)cell, value, __ATOMIC_RELAXED);
    }
}

uint64_t vt_exchange(void *cell, unsigned width, uint64_t value)
{
    switch (width) {
    case 1:
        return __atomic_exchange_n((uint8_t *)cell, (uint8_t)value, __ATOMIC_SEQ_CST);
    case 2:
        return __atomic_exchange_n((uint16_t *)cell, (uint16_t)value, __ATOMIC_SEQ_CST);
    case 4:
        return __atomic_exchange_n((uint32_t *)cell, (uint32_t)value, __ATOMIC_SEQ_CST);
    default:
        return __atomic_exchange_n((uint64_t *)cell, value, __ATOMIC_SEQ_CST);
    }
}

#define COMPARE_EXCHANGE(type)                                                             \
    do {                                                                                   \
        type seen = (type)*expected;                                                       \
        bool done = __atomic_compare_exchange_n((type *)cell, &seen, (type)value, false,   \
                                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
        *expected = seen;                                                                  \
        return done;                                                                       \
    } while (0)

bool vt_compare_exchange(void *cell, unsigned width, uint64_t *expected, uint64_t value)
{
    switch (width) {
    case 1:
        COMPARE_EXCHANGE(uint8_t);
    case 2:
        COMPARE_EXCHANGE(uint16_t);
    case 4:
        COMPARE_EXCHANGE(uint32_t);
    default:
        COMPARE_EXCHANGE(uint64_t);
    }
}

static uint64_t get_register(const struct vt_instruction *in, const struct vt_registers *registers)
{
    uint64_t value = registers->general[in->reg];

    return (in->reg_high ? value >> 8 : value) & mask_of(in->width);
}

/* Writing four bytes clears the upper half; writing one or two leaves the rest. */
static void set_register(struct vt_registers *registers, unsigned reg, unsigned width, bool high,
                         uint64_t value)
{
    uint64_t *target = &registers->general[reg];

    if (high)
        *target = (*target & ~0xff00ull) | (value & 0xff) << 8;
    else if (width >= 4)
        *target = value & mask_of(width);
    else
        *target = (*target & ~mask_of(width)) | (value & mask_of(width));
}

static uint64_t get_source(const struct vt_instruction *in, const struct vt_registers *registers)
{
    if (in->has_immediate)
        return (uint64_t)in->immediate & mask_of(in->width);
    return get_register(in, registers);
}

static uint64_t stamped_load(const void *cell, struct vt_access *access)
{
    uint64_t value;

    access->t0 = stamp_before(access);
    value = vt_peek(cell, access->width);
    access->t1 = stamp_after(access);
    access->kind = VT_LOAD;
    access->old = access->new_ = value;
    return value;
}

/* An exchange has what was really overwritten, and is a fence. */
void vt_overwrite(void *cell, uint64_t value, struct vt_access *access)
{
    if (access->kept) {
        store(cell, access->width, value);
        access->flags |= VT_FLAG_OLD_UNKNOWN;
        return;
    }
    access->t0 = vt_stamp_before();
    access->old = vt_exchange(cell, access->width, value);
    access->t1 = vt_stamp_after();
}

static void stamped_store(void *cell, uint64_t value, struct vt_access *access)
{
    vt_overwrite(cell, value, access);
    access->kind = VT_STORE;
    access->op = VT_OP_MOV;
    access->new_ = value & mask_of(access->width);
}

static uint64_t extended(const struct vt_instruction *in, uint64_t value)
{
    unsigned unused = 64 - 8 * in->width;

    return in->sign_extended ? (uint64_t)((int64_t)(value << unused) >> unused) : value;
}

static void do_load_alu(const struct vt_instruction *in, struct vt_registers *registers,
                        const void *cell, struct vt_access *access)
{
    uint64_t value = stamped_load(cell, access);
    uint64_t result = vt_alu(in->alu, in->width, get_register(in, registers), value,
                             &registers->flags);

    if (in->alu != VT_ALU_CMP)
        set_register(registers, in->reg, in->width, in->reg_high, result);
}

/* How an RMW is written down: the operation and its operand. */
static void describe(struct vt_access *access, enum vt_alu alu, uint64_t source, bool carry)
{
    uint64_t bit = 1ull << (source & 63);

    access->operand = source;
    switch (alu) {
    case VT_ALU_ADD:
        access->op = VT_OP_ADD;
        break;
    case VT_ALU_ADC:
        access->op = VT_OP_ADD;
        access->operand = source + carry;
        break;
    case VT_ALU_SUB:
        access->op = VT_OP_SUB;
        break;
    case VT_ALU_SBB:
        access->op = VT_OP_SUB;
        access->operand = source + carry;
        break;
    case VT_ALU_OR:
        access->op = VT_OP_OR;
        break;
    case VT_ALU_AND:
        access->op = VT_OP_AND;
        break;
    case VT_ALU_XOR:
        access->op = VT_OP_XOR;
        break;
    case VT_ALU_INC:
        access->op = VT_OP_INC;
        access->operand = 1;
        break;
    case VT_ALU_DEC:
        access->op = VT_OP_DEC;
        access->operand = 1;
        break;
    case VT_ALU_NOT:
        access->op = VT_OP_XOR;
        access->operand = ~0ull;
        break;
    case VT_ALU_BTS:
        access->op = VT_OP_OR;
        access->operand = bit;
        break;
    case VT_ALU_BTR:
        access->op = VT_OP_AND;
        access->operand = ~bit;
        break;
    case VT_ALU_BTC:
        access->op = VT_OP_XOR;
        access->operand = bit;
        break;
    default:
        access->op = VT_OP_NONE;
        break;
    }
    access->operand &= mask_of(access->width);
}

static void do_rmw_locked(enum vt_alu alu, uint64_t source, uint64_t *flags, void *cell,
                          struct vt_access *access)
{
    uint64_t seen = vt_peek(cell, access->width), flags_before = *flags;

    access->kind = VT_RMW_LOCKED;
    for (;;) {
        uint64_t expected = seen;

        *flags = flags_before;
        access->new_ = vt_alu(alu, access->width, seen, source, flags);
        access->t0 = stamp_before(access);
        if (vt_compare_exchange(cell, access->width, &seen, access->new_)) {
            access->t1 = stamp_after(access);
            access->old = expected;
            return;
        }
        access->flags |= VT_FLAG_RETRIED;
    }
}

static void do_rmw_plain(enum vt_alu alu, uint64_t source, uint64_t *flags, void *cell,
                         struct vt_access *access)
{
    /*
     * Load, compute, exchange. Committing by compare-and-swap would hide an update of the peer's
     * that comes in between and is lost on the real machine.
     */
    access->kind = VT_RMW_PLAIN;
    access->t0 = stamp_before(access);
    access->loaded = vt_peek(cell, access->width);
    access->new_ = vt_alu(alu, access->width, access->loaded, source, flags);
    if (access->kept) {
        store(cell, access->width, access->new_);
        access->old = access->loaded;
        return;
    }
    access->old = vt_exchange(cell, access->width, access->new_);
    access->t1 = vt_stamp_after();
    if (access->old != access->loaded)
        access->flags |= VT_FLAG_LOST_UPDATE;
}

static void do_rmw(const struct vt_instruction *in, enum vt_alu alu, uint64_t source,
                   struct vt_registers *registers, void *cell, struct vt_access *access)
{
    describe(access, alu, source, registers->flags & VT_CARRY);
    if (in->locked)
        do_rmw_locked(alu, source, &registers->flags, cell, access);
    else
        do_rmw_plain(alu, source, &registers->flags, cell, access);
}

/* xchg is locked without a prefix, too. */
static void do_exchange(const struct vt_instruction *in, struct vt_registers *registers,
                        void *cell, struct vt_access *access)
{
    uint64_t value = get_register(in, registers);

    access->t0 = stamp_before(access);
    access->old = vt_exchange(cell, access->width, value);
    access->t1 = stamp_after(access);
    access->new_ = value;
    access->kind = VT_RMW_LOCKED;
    access->op = VT_OP_XCHG;
    access->operand = value;
    set_register(registers, in->reg, in->width, in->reg_high, access->old);
}

static void do_exchange_add(const struct vt_instruction *in, struct vt_registers *registers,
                            void *cell, struct vt_access *access)
{
    do_rmw(in, VT_ALU_ADD, get_register(in, registers), registers, cell, access);
    set_register(registers, in->reg, in->width, in->reg_high,
                 access->kind == VT_RMW_PLAIN ? access->loaded : access->old);
}

/* Without the prefix another processor may come in between, and it is no fence. */
static bool compare_exchange_plain(void *cell, unsigned width, uint64_t *expected, uint64_t value)
{
    uint64_t seen = vt_peek(cell, width);
    bool equal = seen == *expected;

    if (equal)
        store(cell, width, value);
    *expected = seen;
    return equal;
}

static void do_compare_exchange(const struct vt_instruction *in, struct vt_registers *registers,
                                void *cell, struct vt_access *access)
{
    uint64_t accumulator = registers->general[VT_RAX] & mask_of(in->width);
    uint64_t value = get_register(in, registers), seen = accumulator;
    bool done;

    access->t0 = stamp_before(access);
    done = in->locked || !access->kept ? vt_compare_exchange(cell, in->width, &seen, value)
                                        : compare_exchange_plain(cell, in->width, &seen, value);
    access->t1 = stamp_after(access);
    access->kind = done ? VT_CMPXCHG_OK : VT_CMPXCHG_FAIL;
    access->old = seen;
    access->new_ = done ? value : seen;
    access->operand = accumulator;
    vt_alu(VT_ALU_CMP, in->width, accumulator, seen, &registers->flags);
    if (!done)
        set_register(registers, VT_RAX, in->width, false, seen);
}

bool vt_is_load(const struct vt_instruction *in)
{
    return in->form >= VT_FORM_LOAD && in->form <= VT_FORM_COMPARE;
}

uint8_t vt_kind_ahead(const struct vt_instruction *in, const struct vt_registers *registers,
                      const void *cell)
{
    uint64_t accumulator = registers->general[VT_RAX] & mask_of(in->width);

    if (vt_is_load(in))
        return VT_LOAD;
    switch ((enum vt_form)in->form) {
    case VT_FORM_RMW:
    case VT_FORM_EXCHANGE_ADD:
        return in->locked ? VT_RMW_LOCKED : VT_RMW_PLAIN;
    case VT_FORM_EXCHANGE:
        return VT_RMW_LOCKED;
    case VT_FORM_COMPARE_EXCHANGE:
        return vt_peek(cell, in->width) == accumulator ? VT_CMPXCHG_OK : VT_CMPXCHG_FAIL;
    default:
        return VT_STORE;
    }
}

static void begin(struct vt_access *access, unsigned width)
{
    /* Field by field: as one assignment it is a `rep stos`, which takes as long as all the rest. */
    access->t0 = access->t1 = 0;
    access->old = access->new_ = 0;
    access->loaded = access->operand = 0;
    access->kind = access->op = 0;
    access->width = (uint8_t)width;
    access->flags = 0;
}

uint64_t vt_load(const void *cell, unsigned width, struct vt_access *access)
{
    begin(access, width);
    return stamped_load(cell, access);
}

void vt_store(void *cell, unsigned width, uint64_t value, struct vt_access *access)
{
    begin(access, width);
    stamped_store(cell, value, access);
}

void vt_emulate(const struct vt_instruction *in, struct vt_registers *registers, void *cell,
                struct vt_access *access)
{
    uint64_t value;

    begin(access, in->width);
    switch ((enum vt_form)in->form) {
    case VT_FORM_LOAD:
        value = extended(in, stamped_load(cell, access));
        set_register(registers, in->reg, in->register_width, in->reg_high, value);
        break;
    case VT_FORM_LOAD_IF:
        value = stamped_load(cell, access);
        if (!vt_condition(in->condition, registers->flags))
            value = registers->general[in->reg];
        /* A cmov of four bytes clears the upper half even if it does not move. */
        set_register(registers, in->reg, in->register_width, false, value);
        break;
    case VT_FORM_LOAD_ALU:
        do_load_alu(in, registers, cell, access);
        break;
    case VT_FORM_COMPARE:
        value = stamped_load(cell, access);
        vt_alu(in->alu, in->width, value, get_source(in, registers), &registers->flags);
        break;
    case VT_FORM_STORE:
        stamped_store(cell, get_source(in, registers), access);
        break;
    case VT_FORM_STORE_IF:
        stamped_store(cell, vt_condition(in->condition, registers->flags), access);
        break;
    case VT_FORM_RMW:
        do_rmw(in, in->alu, get_source(in, registers), registers, cell, access);
        break;
    case VT_FORM_EXCHANGE:
        do_exchange(in, registers, cell, access);
        break;
    case VT_FORM_EXCHANGE_ADD:
        do_exchange_add(in, registers, cell, access);
        break;
    case VT_FORM_COMPARE_EXCHANGE:
        do_compare_exchange(in, registers, cell, access);
        break;
    case VT_FORM_FILL:
        stamped_store(cell, get_register(in, registers), access);
        registers->general[VT_RDI] += registers->flags & VT_DIRECTION ? -(uint64_t)in->width
                                                                      : in->width;
        break;
    case VT_FORM_NONE:
        break;
    }
}
