#include "access.h"

#include <stdatomic.h>
#include <string.h>

#include "change.h"
#include "clock.h"
#include "decode.h"
#include "emulate.h"
#include "inject.h"
#include "objects.h"
#include "quiet.h"
#include "translate.h"

/*
 * The words of struct vchan_interface (xen/include/public/io/libxenvchan.h). Behind them stand
 * grant references and rings, which are no cells.
 */
static const struct cell {
    uint8_t offset;
    uint8_t width;
} cells[] = {
    { 0, 4 },  { 4, 4 },  { 8, 4 },  { 12, 4 }, { 16, 2 },
    { 18, 2 }, { 20, 1 }, { 21, 1 }, { 22, 1 }, { 23, 1 },
};

#define CELL_COUNT (sizeof(cells) / sizeof(cells[0]))
#define CELLS_END 24

/* ---- which instruction stands where ---- */

#define KNOWN_MAX 1024

struct known {
    _Atomic uintptr_t code; /* 0: free; 1: being filled */
    struct vt_instruction instruction;
    uint8_t bytes[VT_INSTRUCTION_BYTES_MAX];
};

static struct known known[KNOWN_MAX];

void vt_access_forget_code(void)
{
    memset(known, 0, sizeof(known));
}

#define NEAR 8

static struct known *near_place(uintptr_t address, unsigned near)
{
    return &known[(address + near * 37) % KNOWN_MAX];
}

/* Another instruction may stand there by now: a library was unloaded and another one loaded. */
static bool is_still_there(const struct known *place, const uint8_t *code)
{
    return !memcmp(place->bytes, code, place->instruction.length);
}

/*
 * Filled places stay, so a reader needs no lock; if all near ones are taken, or hold what is no
 * longer there, it decodes anew.
 */
static bool decode_cached(const uint8_t *code, struct vt_instruction *instruction)
{
    uintptr_t address = (uintptr_t)code;

    for (unsigned near = 0; near < NEAR; near++) {
        struct known *place = near_place(address, near);

        if (atomic_load_explicit(&place->code, memory_order_acquire) == address &&
            is_still_there(place, code)) {
            *instruction = place->instruction;
            return true;
        }
    }
    if (!vt_decode(code, instruction))
        return false;
    for (unsigned near = 0; near < NEAR; near++) {
        struct known *place = near_place(address, near);
        uintptr_t expected = 0;

        if (!atomic_compare_exchange_strong(&place->code, &expected, 1))
            continue;
        place->instruction = *instruction;
        memcpy(place->bytes, code, instruction->length);
        atomic_store_explicit(&place->code, address, memory_order_release);
        break;
    }
    return true;
}

/* ---- writing down ---- */

struct place {
    bool recorded;            /* a channel of an earlier recording is not in this one */
    bool kept;                /* the order of accesses is */
    struct vt_thread *thread; /* NULL: there are too many */
    struct vt_channel *channel;
    uint32_t site;
    uint16_t flags;
};

static uint64_t bytes_of(uint64_t value, unsigned first, unsigned count)
{
    value >>= 8 * first;
    return count == 8 ? value : value & ((1ull << (8 * count)) - 1);
}

static void log_piece(const struct place *place, const struct vt_access *access, unsigned start,
                      unsigned offset, unsigned width)
{
    unsigned first = offset - start;

    vt_log(place->thread, &(struct vt_record){
                              .t0 = access->t0,
                              .t1 = access->t1,
                              .old = bytes_of(access->old, first, width),
                              .new_ = bytes_of(access->new_, first, width),
                              .site = place->site,
                              .operand = (uint32_t)bytes_of(access->operand, first, width),
                              .channel = place->channel->number,
                              .offset = (uint16_t)offset,
                              .kind = access->kind,
                              .op = access->op,
                              .width = (uint8_t)width,
                              .flags = place->flags | access->flags,
                          });
}

static bool is_one_cell(unsigned offset, unsigned width)
{
    static const uint8_t width_at[CELLS_END] = { [0] = 4,  [4] = 4,  [8] = 4,  [12] = 4, [16] = 2,
                                                 [18] = 2, [20] = 1, [21] = 1, [22] = 1, [23] = 1 };

    return offset < CELLS_END && width_at[offset] == width;
}

/* One record a cell, because cells are what the specification speaks of. */
static void log_access(const struct place *place, const struct vt_access *access, unsigned start)
{
    unsigned end = start + access->width;

    if (!place->recorded)
        return;
    if (is_one_cell(start, access->width)) {
        log_piece(place, access, start, start, access->width);
        return;
    }
    for (unsigned i = 0; i < CELL_COUNT; i++) {
        unsigned from = cells[i].offset, to = from + cells[i].width;

        from = from < start ? start : from;
        to = to > end ? end : to;
        if (from < to)
            log_piece(place, access, start, from, to - from);
    }
    if (end > CELLS_END) {
        unsigned from = start > CELLS_END ? start : CELLS_END;

        log_piece(place, access, start, from, end - from);
    }
}

static void log_done(const struct place *place, const struct vt_access *access, unsigned offset)
{
    if (access->flags & VT_FLAG_LOST_UPDATE) {
        struct vt_access load = { .t0 = access->t0, .t1 = access->t1, .kind = VT_LOAD };

        load.width = access->width;
        load.old = load.new_ = access->loaded;
        log_access(place, &load, offset);
    }
    log_access(place, access, offset);
}

static void access_one(const struct place *place, const struct vt_instruction *instruction,
                       struct vt_registers *registers, uint8_t *page, unsigned offset)
{
    struct vt_access access;

    access.kept = place->kept;
    vt_emulate(instruction, registers, page + offset, &access);
    log_done(place, &access, offset);
}

/* ---- where faults are injected ---- */

/* False if the fault can do nothing to it. */
static bool change(struct place *place, const struct vt_moment *moment,
                   const struct vt_effect *effect, const struct vt_instruction *instruction,
                   struct vt_registers *registers, void *cell, struct vt_access *access)
{
    uint64_t earlier = 0, in_page;

    if (effect->fault == VT_FAULT_STALE) {
        vt_inject_saw(place->channel, moment->offset, vt_peek(cell, moment->width));
        if (!vt_inject_earlier(place->channel, moment->offset, &earlier)) {
            vt_inject_in_vain(effect);
            return false;
        }
    }
    vt_change(effect, earlier, instruction, registers, cell, access, &in_page);
    if (access->kind != VT_CMPXCHG_FAIL) {
        vt_inject_log(moment, effect, in_page);
        place->flags |= VT_FLAG_FAULT_INJECTED;
    }
    return true;
}

static void access_with_faults(struct place *place, const struct vt_instruction *instruction,
                               struct vt_registers *registers, uint8_t *page, unsigned offset)
{
    struct vt_moment moment = {
        .thread = place->thread,
        .channel = place->channel,
        .site = place->site,
        .offset = (uint16_t)offset,
        .call = place->thread->call,
        .kind = vt_kind_ahead(instruction, registers, page + offset),
        .width = instruction->width,
    };
    struct vt_effect effect = vt_inject_before(&moment);
    struct vt_access access;

    place->flags |= effect.flags;
    access.kept = place->kept;
    if (!effect.fault ||
        !change(place, &moment, &effect, instruction, registers, page + offset, &access))
        vt_emulate(instruction, registers, page + offset, &access);
    if (effect.fault != VT_FAULT_STALE)
        vt_inject_saw(place->channel, offset, access.new_);
    log_done(place, &access, offset);
    vt_inject_after(&moment, &effect,
                    (access.kind == VT_CMPXCHG_FAIL) == (moment.kind == VT_CMPXCHG_FAIL));
}

/* ---- memset ---- */

struct fill {
    uint8_t *page;
    unsigned start;
    unsigned end;
    uint64_t pattern; /* repeats every `pattern_bytes` from `start` on */
    unsigned pattern_bytes;
};

static uint8_t fill_byte(const struct fill *fill, unsigned at)
{
    return (uint8_t)bytes_of(fill->pattern, (at - fill->start) % fill->pattern_bytes, 1);
}

static void fill_piece(const struct place *place, const struct fill *fill, unsigned from,
                       unsigned width)
{
    struct vt_access access = { .kind = VT_BULK, .op = VT_OP_MOV, .width = (uint8_t)width };

    for (unsigned byte = 0; byte < width; byte++)
        access.new_ |= (uint64_t)fill_byte(fill, from + byte) << (8 * byte);
    vt_overwrite(fill->page + from, access.new_, &access);
    if (vt_has_rules && is_one_cell(from, width))
        vt_inject_saw(place->channel, from, access.new_);
    log_access(place, &access, from);
}

static void fill_cells(const struct place *place, const struct fill *fill)
{
    for (unsigned i = 0; i < CELL_COUNT; i++) {
        unsigned from = cells[i].offset, width = cells[i].width, to = from + width;

        if (fill->start <= from && to <= fill->end) {
            fill_piece(place, fill, from, width);
            continue;
        }
        /* Begun or ended within a cell: byte by byte. */
        for (unsigned at = from; at < to; at++)
            if (fill->start <= at && at < fill->end)
                fill_piece(place, fill, at, 1);
    }
}

/* What lies behind the cells: one record for all. */
static void fill_rest(const struct place *place, const struct fill *fill)
{
    unsigned from = fill->start > CELLS_END ? fill->start : CELLS_END;
    struct vt_record record = { .kind = VT_BULK, .op = VT_OP_MOV };

    if (from >= fill->end)
        return;
    record.t0 = vt_stamp_before();
    for (unsigned at = from; at < fill->end; at++)
        fill->page[at] = fill_byte(fill, at);
    record.t1 = vt_stamp_after();
    record.new_ = fill->pattern;
    record.width = (uint8_t)fill->pattern_bytes;
    record.site = place->site;
    record.operand = fill->end - from;
    record.channel = place->channel->number;
    record.offset = (uint16_t)from;
    record.flags = place->flags;
    if (place->recorded)
        vt_log(place->thread, &record);
}

/* rep stos, forwards, as far as the page goes. */
static enum vt_outcome access_repeated(const struct place *place,
                                       const struct vt_instruction *instruction,
                                       struct vt_registers *registers, uint8_t *page,
                                       unsigned offset)
{
    unsigned width = instruction->width;
    uint64_t count = registers->general[VT_RCX], room = (VT_PAGE_BYTES - offset) / width;
    struct fill fill = { page, offset, 0, bytes_of(registers->general[VT_RAX], 0, width), width };

    if (registers->flags & VT_DIRECTION || !room)
        return VT_REFUSED;
    if (count > room)
        count = room;
    fill.end = offset + (unsigned)count * width;
    fill_cells(place, &fill);
    fill_rest(place, &fill);
    registers->general[VT_RCX] -= count;
    registers->general[VT_RDI] += count * width;
    return registers->general[VT_RCX] ? VT_DONE_PARTLY : VT_DONE;
}

static struct place place_of(struct vt_channel *channel, uint32_t site, uint16_t flags)
{
    bool recorded = channel->session == vt_log_session();

    return (struct place){
        .recorded = recorded,
        .thread = recorded ? vt_thread() : NULL,
        .channel = channel,
        .site = site,
        .flags = flags,
    };
}

void vt_access_fill(struct vt_channel *channel, uint32_t site, unsigned offset, uint8_t value,
                    size_t bytes)
{
    struct place place = place_of(channel, site, 0);
    struct fill fill = { channel->page, offset, offset + (unsigned)bytes, value, 1 };

    fill_cells(&place, &fill);
    fill_rest(&place, &fill);
}

bool vt_site_of(const void *code, uint32_t *site)
{
    uintptr_t offset = vt_original_code(code) - vt_library.base;
    bool inside = offset < vt_library.bytes;

    *site = inside ? (uint32_t)offset : 0;
    return inside;
}

/* False if it does not end within the page. */
static bool access_whole(struct place *place, const struct vt_instruction *instruction,
                         struct vt_registers *registers, uint8_t *page, unsigned offset)
{
    if (offset + instruction->width > VT_PAGE_BYTES)
        return false;
    if (__builtin_expect(vt_has_rules, false) && place->thread &&
        is_one_cell(offset, instruction->width))
        access_with_faults(place, instruction, registers, page, offset);
    else
        access_one(place, instruction, registers, page, offset);
    return true;
}

static _Atomic bool has_faulted; /* behind the init, where memory is filled */

bool vt_faults_are_due(void)
{
    if (vt_calls_only)
        return false;
    return atomic_load_explicit(&has_faulted, memory_order_relaxed) || !vt_is_translated_whole();
}

static uint16_t flags_of(bool by_library)
{
    if (!by_library)
        return VT_FLAG_BY_APPLICATION;
    return vt_is_translated() ? VT_FLAG_BY_SIGNAL : 0;
}

enum vt_outcome vt_access_at(struct vt_channel *channel, const uint8_t *code, const void *address,
                             struct vt_registers *registers, unsigned *length)
{
    unsigned offset = (unsigned)((const uint8_t *)address - channel->decoy);
    struct vt_instruction instruction;
    struct place place;
    uint32_t site;

    if (!decode_cached(code, &instruction))
        return VT_REFUSED;
    *length = instruction.length;
    if (!channel->in_init_or_close)
        atomic_store_explicit(&has_faulted, true, memory_order_relaxed);
    /* The fault names the first byte that could not be touched; it must be the operand's. */
    if (vt_effective_address(&instruction, registers) != (uintptr_t)address)
        return VT_REFUSED;
    place = place_of(channel, 0, flags_of(vt_site_of(code, &site)));
    place.site = site;
    if (instruction.form == VT_FORM_FILL && instruction.repeated)
        return access_repeated(&place, &instruction, registers, channel->page, offset);
    return access_whole(&place, &instruction, registers, channel->page, offset) ? VT_DONE
                                                                                 : VT_REFUSED;
}

/* What an instruction on the stack has there. */
struct odd {
    uint8_t operand[VT_ODD_BYTES_MAX];
    size_t distance; /* of the operand from the first decoy: its register may change */
};

_Static_assert(sizeof(struct odd) <= VT_ODD_ROOM_BYTES, "it has to fit");

/* It lies above the frame of trampoline.h. */
static struct odd *odd_of(struct vt_registers *registers)
{
    return (void *)((uint8_t *)registers + sizeof(*registers) + 5 * sizeof(uint64_t));
}

static unsigned odd_width(unsigned left)
{
    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* In pieces of at most eight bytes, as a bus may do it too. */
static void access_odd(const struct place *place, const struct vt_site *site, uint8_t *page,
                       unsigned offset, struct odd *odd)
{
    for (unsigned at = 0, width; at < site->odd_bytes; at += width) {
        struct vt_access access;
        uint64_t value = 0;

        width = odd_width(site->odd_bytes - at);
        access.kept = place->kept;
        if (site->phase == VT_BEFORE) {
            value = vt_load(page + offset + at, width, &access);
            memcpy(odd->operand + at, &value, width);
        } else {
            memcpy(&value, odd->operand + at, width);
            vt_store(page + offset + at, width, value, &access);
        }
        log_access(place, &access, offset + at);
    }
}

bool vt_access_translated(const struct vt_site *site, struct vt_registers *registers,
                          size_t distance)
{
    struct odd *odd = site->phase == VT_WHOLE ? NULL : odd_of(registers);
    struct vt_channel *channel;
    struct place place;
    uint8_t *page;
    unsigned offset;

    if (site->phase == VT_BEHIND)
        distance = odd->distance;
    else if (odd)
        odd->distance = distance;
    channel = vt_channel_at((unsigned)(distance / VT_PAGE_BYTES));
    page = channel ? channel->page : NULL;
    offset = (unsigned)(distance % VT_PAGE_BYTES);
    if (!page)
        return false;
    place = place_of(channel, site->offset, 0);
    place.kept = vt_order_kept;
    if (!odd)
        return access_whole(&place, &site->instruction, registers, page, offset);
    if (offset + site->odd_bytes > VT_PAGE_BYTES)
        return false;
    access_odd(&place, site, page, offset, odd);
    return true;
}
