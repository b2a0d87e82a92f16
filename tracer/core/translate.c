#include "translate.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access.h"
#include "channels.h"
#include "decode.h"
#include "frames.h"
#include "objects.h"
#include "trampoline.h"

#define STUB_BYTES_MAX 192
#define JUMP_BYTES 5
#define JUMP_IF_BYTES 6
#define NEAR_BYTES_MAX 0x60000000 /* well below 2 GiB, from either end of the library */
#define NEAR_STEP 0x1000000
#define RED_ZONE_BYTES 128

enum shape { AS_IT_IS, RIP_RELATIVE, JUMP, JUMP_IF, CALL, SITE, ODD_SITE };

/* One instruction of the library and its copy. */
struct piece {
    uint32_t original; /* offset in the library */
    uint32_t copy;     /* offset in the area */
    uint32_t target;   /* of a branch, or RIP_RELATIVE: offset in the library, perhaps outside of it */
    uint32_t site;     /* of a SITE: its number; of an ODD_SITE the next one is its, too */
    uint8_t bytes;
    uint8_t copy_bytes;
    uint8_t shape;
    uint8_t detail; /* JUMP_IF: the condition; RIP_RELATIVE: where the displacement stands */
    bool names_only; /* RIP_RELATIVE: it takes an address, and reads nothing there */
};

static struct {
    uintptr_t base; /* of the library that it is of; 0: none yet */
    uint8_t *area;  /* pointers, the copies, then the stubs */
    size_t area_bytes;
    struct piece *pieces; /* by copy */
    uint32_t piece_count;
    uint32_t *piece_at; /* by offset in the library: number of its piece + 1 */
    size_t library_bytes;
    struct vt_site *sites;
    uint32_t site_count;
    struct vt_translation done;
    bool used; /* calls go into it */
} copy;

/* What the stubs find at the start of the area: out of reach of their 32-bit distances. */
struct pointers {
    const void *traced;
    uintptr_t decoys;
};

/* ---- taking apart ---- */

static bool is_relative_branch(const ZydisDecodedInstruction *in)
{
    return in->raw.imm[0].is_relative;
}

static bool shape_branch(const ZydisDecodedInstruction *in, uintptr_t next, struct piece *piece)
{
    piece->target = (uint32_t)(next + (uint64_t)in->raw.imm[0].value.s - vt_library.base);
    switch (in->meta.category) {
    case ZYDIS_CATEGORY_CALL:
        piece->shape = CALL;
        piece->copy_bytes = JUMP_BYTES;
        return true;
    case ZYDIS_CATEGORY_UNCOND_BR:
        piece->shape = JUMP;
        piece->copy_bytes = JUMP_BYTES;
        return true;
    case ZYDIS_CATEGORY_COND_BR:
        piece->shape = JUMP_IF;
        piece->copy_bytes = JUMP_IF_BYTES;
        piece->detail = in->opcode & 15;
        /* 70-7f, 0f 80-8f; loop and jrcxz have no longer form. */
        return in->opcode >> 4 == 7 || (in->opcode >> 4 == 8 && in->opcode_map == ZYDIS_OPCODE_MAP_0F);
    default:
        return false;
    }
}

/*
 * What the stack pointer leads to is the stack. Instructions that load the stack pointer, and
 * repeated ones, which may be done in part, stay as they are and fault.
 */
static bool may_touch_a_page(const struct vt_instruction *instruction)
{
    bool loads_stack_pointer = instruction->form == VT_FORM_LOAD && instruction->reg == VT_RSP &&
                               !instruction->reg_high;

    return instruction->form != VT_FORM_FILL && instruction->base >= 0 &&
           instruction->base != VT_RSP && !loads_stack_pointer;
}

static bool is_bit_test(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_BT || mnemonic == ZYDIS_MNEMONIC_BTS ||
           mnemonic == ZYDIS_MNEMONIC_BTR || mnemonic == ZYDIS_MNEMONIC_BTC;
}

/* It has an operand in memory, and leaves that alone. */
static bool only_names_memory(const ZydisDecodedInstruction *in)
{
    return in->meta.category == ZYDIS_CATEGORY_NOP || in->meta.category == ZYDIS_CATEGORY_WIDENOP ||
           in->meta.category == ZYDIS_CATEGORY_PREFETCH || in->mnemonic == ZYDIS_MNEMONIC_CLFLUSH ||
           in->mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT;
}

/* Bytes of the operand of an instruction whose place can be taken by memory on the stack; else 0. */
static unsigned odd_bytes(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *operands,
                          bool *reads, bool *writes)
{
    const ZydisDecodedOperand *memory = NULL;
    bool needs_alignment;

    for (unsigned i = 0; i < in->operand_count; i++) {
        const ZydisDecodedOperand *one = &operands[i];

        if (one->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (memory)
                return 0;
            memory = one;
        }
        /* The stack pointer is elsewhere while it runs. */
        if (one->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, one->reg.value) ==
                ZYDIS_REGISTER_RSP)
            return 0;
    }
    if (!memory || memory->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
        memory->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || in->address_width != 64 ||
        memory->mem.segment == ZYDIS_REGISTER_FS || memory->mem.segment == ZYDIS_REGISTER_GS ||
        memory->mem.base == ZYDIS_REGISTER_NONE || memory->mem.base == ZYDIS_REGISTER_RSP)
        return 0;
    /* A lock means nothing on the stack; a bit far from the operand is not in it. */
    if (in->attributes & ZYDIS_ATTRIB_HAS_LOCK || is_bit_test(in->mnemonic) ||
        only_names_memory(in) ||
        (in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
         in->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX))
        return 0;
    needs_alignment = memory->size > 64 && in->mnemonic != ZYDIS_MNEMONIC_MOVUPS &&
                      in->mnemonic != ZYDIS_MNEMONIC_MOVDQU &&
                      (in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
                       in->mnemonic == ZYDIS_MNEMONIC_VMOVAPS ||
                       in->mnemonic == ZYDIS_MNEMONIC_VMOVAPD ||
                       in->mnemonic == ZYDIS_MNEMONIC_VMOVDQA);
    if (needs_alignment || memory->size % 8 || memory->size > 8 * VT_ODD_BYTES_MAX)
        return 0;
    *reads = memory->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    *writes = memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    return memory->size / 8u;
}

static bool shape_odd(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *operands,
                      struct piece *piece, struct vt_site *sites)
{
    bool reads, writes;
    unsigned bytes = odd_bytes(in, operands, &reads, &writes);

    if (!bytes)
        return false;
    piece->shape = ODD_SITE;
    piece->copy_bytes = JUMP_BYTES;
    sites[0] = (struct vt_site){ .offset = piece->original, .phase = VT_BEFORE };
    sites[1] = (struct vt_site){ .offset = piece->original, .phase = VT_BEHIND };
    sites[0].odd_bytes = reads ? (uint8_t)bytes : 0;
    sites[1].odd_bytes = writes ? (uint8_t)bytes : 0;
    return true;
}

static bool shape_piece(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *operands,
                        uintptr_t at, struct piece *piece, struct vt_site *sites)
{
    struct vt_instruction instruction;

    *piece = (struct piece){
        .original = (uint32_t)(at - vt_library.base),
        .bytes = in->length,
        .copy_bytes = in->length,
        .shape = AS_IT_IS,
    };
    if (is_relative_branch(in))
        return shape_branch(in, at + in->length, piece);
    if (in->attributes & ZYDIS_ATTRIB_IS_RELATIVE) {
        piece->shape = RIP_RELATIVE;
        piece->detail = in->raw.disp.offset;
        piece->target = (uint32_t)(at + in->length + (uint64_t)in->raw.disp.value - vt_library.base);
        piece->names_only = in->mnemonic == ZYDIS_MNEMONIC_LEA;
        return in->raw.disp.size == 32;
    }
    if (!vt_decode((const uint8_t *)at, &instruction)) {
        shape_odd(in, operands, piece, sites);
        return true;
    }
    if (!may_touch_a_page(&instruction))
        return true;
    piece->shape = SITE;
    piece->copy_bytes = JUMP_BYTES;
    sites[0] = (struct vt_site){ .instruction = instruction, .offset = piece->original };
    /* Two decoders that do not agree: one of them would make a wrong copy. */
    return instruction.length == in->length;
}

/* The pieces of one function, behind those that are there. False, and none, if it is refused. */
static bool plan_function(const ZydisDecoder *decoder, const struct vt_function *function)
{
    struct vt_translation before = copy.done;
    uint32_t first = copy.piece_count;

    for (size_t at = 0; at < function->bytes;) {
        const uint8_t *code = (const uint8_t *)function->start + at;
        struct piece *piece = &copy.pieces[copy.piece_count];
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        ZydisDecodedInstruction in;

        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, code, function->bytes - at, &in,
                                                 operands)) ||
            !shape_piece(&in, operands, (uintptr_t)code, piece, &copy.sites[copy.site_count])) {
            copy.piece_count = first;
            copy.done = before;
            return false;
        }
        if (piece->shape == SITE || piece->shape == ODD_SITE) {
            piece->site = copy.site_count;
            copy.site_count += piece->shape == SITE ? 1 : 2;
            copy.done.sites++;
        }
        copy.piece_count++;
        at += in.length;
    }
    for (uint32_t i = first; i < copy.piece_count; i++)
        copy.piece_at[copy.pieces[i].original] = i + 1;
    return true;
}

static void plan(const struct vt_function *functions, size_t count)
{
    ZydisDecoder decoder;

    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (size_t i = 0; i < count; i++)
        if (plan_function(&decoder, &functions[i]))
            copy.done.functions++;
        else
            copy.done.refused++;
}

/*
 * Places of the copies, one function behind the other in the order of the library: where one ends
 * without a jump the next one follows, as it does there; where it does not, a jump leads back.
 */
static size_t place_pieces(void)
{
    size_t at = sizeof(struct pointers);

    for (uint32_t i = 0; i < copy.piece_count; i++) {
        const struct piece *before = i ? &copy.pieces[i - 1] : NULL;

        if (before && before->original + before->bytes != copy.pieces[i].original)
            at += JUMP_BYTES;
        copy.pieces[i].copy = (uint32_t)at;
        at += copy.pieces[i].copy_bytes;
    }
    return at + JUMP_BYTES;
}

/* ---- making ---- */

static uint8_t *put(uint8_t *at, const void *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

#define PUT(at, ...) put(at, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* The distance from behind itself to `target`. */
static uint8_t *put_distance(uint8_t *at, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (at + 4));

    return put(at, &distance, sizeof(distance));
}

static uint8_t *put_jump(uint8_t *at, const uint8_t *target)
{
    return put_distance(PUT(at, 0xe9), target);
}

static const uint8_t *there(uint32_t offset)
{
    return (const uint8_t *)vt_library.base + (int32_t)offset;
}

/* The copy of what stands at an offset of the library, or that itself. */
static const uint8_t *destination(uint32_t offset)
{
    if (offset < copy.library_bytes && copy.piece_at[offset])
        return copy.area + copy.pieces[copy.piece_at[offset] - 1].copy;
    return there(offset);
}

static void decode_again(const uint8_t *code, ZydisDecodedInstruction *in)
{
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoder decoder;

    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderDecodeFull(&decoder, code, VT_INSTRUCTION_BYTES_MAX, in, operands);
}

/* Where ModRM, SIB and displacement end. */
static size_t operand_end(const ZydisDecodedInstruction *in)
{
    if (in->raw.disp.size)
        return in->raw.disp.offset + in->raw.disp.size / 8u;
    return in->raw.sib.offset ? in->raw.sib.offset + 1u : in->raw.modrm.offset + 1u;
}

/* X and B of an instruction, from wherever its encoding has them. */
static uint8_t extensions(const ZydisDecodedInstruction *in)
{
    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return (uint8_t)(in->raw.vex.size == 3 ? (!in->raw.vex.X << 1) | !in->raw.vex.B : 0);
    return (uint8_t)((in->raw.rex.X << 1) | in->raw.rex.B);
}

/* lea of the instruction's operand, rax: its ModRM, SIB and displacement, with another register. */
static uint8_t *put_address(uint8_t *at, const uint8_t *code, const ZydisDecodedInstruction *in)
{
    size_t from = in->raw.modrm.offset + 1u;

    at = PUT(at, 0x48 | extensions(in), 0x8d, code[in->raw.modrm.offset] & 0xc7);
    return put(at, code + from, operand_end(in) - from);
}

/* The instruction itself with its operand at the top of the stack. */
static uint8_t *put_on_stack(uint8_t *at, const uint8_t *code, const ZydisDecodedInstruction *in)
{
    uint8_t *start = at;

    at = put(at, code, in->raw.modrm.offset);
    if (in->attributes & ZYDIS_ATTRIB_HAS_REX)
        start[in->raw.rex.offset] &= 0xfc;
    /* In VEX the two are kept inverted; the short form does not have them. */
    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && in->raw.vex.size == 3)
        start[in->raw.vex.offset + 1] |= 0x60;
    at = PUT(at, (code[in->raw.modrm.offset] & 0x38) | 0x04, 0x24);
    return put(at, code + operand_end(in), in->length - operand_end(in));
}

/* The frame of trampoline.h, but for the site: `room` bytes are left above it. */
static uint8_t *put_save(uint8_t *at)
{
    return PUT(at, 0x51,                          /* push rcx */
               0x48, 0x89, 0xc1,                  /* mov rcx, rax */
               0x9f, 0x0f, 0x90, 0xc0, 0x50);     /* lahf; seto al; push rax */
}

static uint8_t *put_move_stack(uint8_t *at, int32_t bytes)
{
    return put(PUT(at, 0x48, 0x8d, 0xa4, 0x24), &bytes, sizeof(bytes)); /* lea rsp, [rsp + bytes] */
}

/* Registers and flags again as they were, from the stack as trampoline.h draws it. */
static uint8_t *put_restore(uint8_t *at)
{
    return PUT(at, 0x58,       /* pop rax */
               0x04, 0x7f,     /* add al, 127: the overflow flag */
               0x9e,           /* sahf: the others */
               0x59,           /* pop rcx */
               0x58);          /* pop rax */
}

/* Go to *distance, which is a byte, if the operand is on a decoy; rcx has its address. */
static uint8_t *put_question(uint8_t *at, uint8_t **distance)
{
    const struct pointers *pointers = (const void *)copy.area;
    uint32_t range = VT_CHANNELS_MAX * VT_PAGE_BYTES;

    at = put_distance(PUT(at, 0x48, 0x2b, 0x0d), (const uint8_t *)&pointers->decoys); /* sub rcx */
    at = put(PUT(at, 0x48, 0x81, 0xf9), &range, sizeof(range)); /* cmp rcx, range */
    at = PUT(at, 0x72, 0);                                      /* jb */
    *distance = at - 1;
    return at;
}

static void set_distance(uint8_t *distance, const uint8_t *target)
{
    *distance = (uint8_t)(target - (distance + 1));
}

/* Call the routine for the site; the flags say whether it was done. */
static uint8_t *put_call(uint8_t *at, const struct vt_site *site)
{
    const struct pointers *pointers = (const void *)copy.area;

    at = put(PUT(at, 0x48, 0xb8), &site, sizeof(site)); /* mov rax, site */
    at = put_distance(PUT(at, 0x50, 0xff, 0x15), (const uint8_t *)&pointers->traced); /* call */
    return PUT(at, 0x84, 0xc0, 0x58); /* test al, al; pop rax */
}

static uint8_t *put_stub(uint8_t *at, const struct piece *piece)
{
    const uint8_t *code = (const uint8_t *)vt_library.base + piece->original;
    const uint8_t *back = copy.area + piece->copy + JUMP_BYTES;
    int32_t room = piece->shape == ODD_SITE ? RED_ZONE_BYTES + VT_ODD_ROOM_BYTES : RED_ZONE_BYTES;
    const struct vt_site *sites = &copy.sites[piece->site];
    uint8_t *decoy, *elsewhere, *not_done;
    ZydisDecodedInstruction in;

    decode_again(code, &in);
    at = PUT(put_move_stack(at, -room), 0x50); /* push rax */
    at = put_question(put_save(put_address(at, code, &in)), &decoy);
    elsewhere = at;
    at = put_move_stack(put_restore(at), room);
    at = put_jump(put(at, code, piece->bytes), back);
    set_distance(decoy, at);
    at = PUT(put_call(at, &sites[0]), 0x74, 0); /* jz elsewhere: no page; there it faults */
    not_done = at - 1;
    set_distance(not_done, elsewhere);
    at = put_restore(at);
    if (piece->shape == ODD_SITE) {
        at = put_on_stack(at, code, &in);
        at = put_save(PUT(at, 0x50)); /* push rax */
        at = put_restore(put_call(at, &sites[1]));
    }
    return put_jump(put_move_stack(at, room), back);
}

static uint8_t *put_piece(uint8_t *at, const struct piece *piece, const uint8_t *stub)
{
    const uint8_t *code = (const uint8_t *)vt_library.base + piece->original;
    const uint8_t *target;
    int32_t distance;
    uint8_t *end;

    switch ((enum shape)piece->shape) {
    case SITE:
    case ODD_SITE:
        return put_jump(at, stub);
    case JUMP:
        return put_jump(at, destination(piece->target));
    case JUMP_IF:
        return put_distance(PUT(at, 0x0f, 0x80 | piece->detail), destination(piece->target));
    case CALL:
        return put_distance(PUT(at, 0xe8), destination(piece->target));
    case RIP_RELATIVE:
        end = put(at, code, piece->bytes);
        /* A function whose address is taken is called at its copy, too. What is read is data. */
        target = piece->names_only ? destination(piece->target) : there(piece->target);
        distance = (int32_t)(target - end);
        memcpy(at + piece->detail, &distance, sizeof(distance));
        return end;
    default:
        return put(at, code, piece->bytes);
    }
}

static void make(size_t stubs_at)
{
    uint8_t *stub = copy.area + stubs_at, *at = copy.area + sizeof(struct pointers);

    *(struct pointers *)copy.area = (struct pointers){ vt_traced, vt_decoys_start() };
    for (uint32_t i = 0; i < copy.piece_count; i++) {
        const struct piece *piece = &copy.pieces[i];

        if (copy.area + piece->copy != at)
            put_jump(at, destination(piece[-1].original + piece[-1].bytes));
        at = put_piece(copy.area + piece->copy, piece, stub);
        if (piece->shape == SITE || piece->shape == ODD_SITE)
            stub = put_stub(stub, piece);
    }
    if (copy.piece_count)
        put_jump(at, destination(copy.pieces[copy.piece_count - 1].original +
                                 copy.pieces[copy.piece_count - 1].bytes));
}

/* ---- memory ---- */

/* Memory that 32-bit distances reach from all of the library, and it from there. */
static uint8_t *map_near(size_t bytes)
{
    uintptr_t start = vt_library.base & ~(uintptr_t)(NEAR_STEP - 1);

    for (uintptr_t away = NEAR_STEP; away < NEAR_BYTES_MAX; away += NEAR_STEP) {
        uintptr_t places[2] = { start - away, start + away };

        for (unsigned i = 0; i < 2; i++) {
            void *found = mmap((void *)places[i], bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

            if (found == (void *)places[i])
                return found;
            /* A kernel that does not know the flag takes the address for a wish. */
            if (found != MAP_FAILED)
                munmap(found, bytes);
        }
    }
    return NULL;
}

static int refuse(int error)
{
    copy.base = 0;
    copy.piece_count = 0;
    memset(&copy.done, 0, sizeof(copy.done));
    return error;
}

/* What an earlier library left stays: a thread may still be in it. */
static bool reserve_tables(void)
{
    copy.library_bytes = vt_library.bytes;
    copy.pieces = calloc(vt_library.bytes, sizeof(*copy.pieces));
    copy.piece_at = calloc(vt_library.bytes, sizeof(*copy.piece_at));
    copy.sites = calloc(2 * vt_library.bytes, sizeof(*copy.sites));
    copy.piece_count = copy.site_count = 0;
    memset(&copy.done, 0, sizeof(copy.done));
    return copy.pieces && copy.piece_at && copy.sites;
}

int vt_translate_library(struct vt_translation *done)
{
    struct vt_function *functions;
    size_t count, stubs_at;

    if (copy.base == vt_library.base) {
        copy.used = true;
        *done = copy.done;
        return 0;
    }
    count = vt_functions_of(vt_library.base, &functions);
    if (!count || !reserve_tables()) {
        free(functions);
        return refuse(count ? -ENOMEM : -ENOEXEC);
    }
    plan(functions, count);
    free(functions);
    stubs_at = place_pieces();
    copy.area_bytes = stubs_at + copy.done.sites * STUB_BYTES_MAX;
    copy.area = map_near(copy.area_bytes);
    if (!copy.area)
        return refuse(-ENOMEM);
    make(stubs_at);
    if (mprotect(copy.area, copy.area_bytes, PROT_READ | PROT_EXEC))
        return refuse(-errno);
    copy.base = vt_library.base;
    copy.used = true;
    *done = copy.done;
    return 0;
}

void vt_translate_nothing(void)
{
    copy.used = false;
}

/* ---- there and back ---- */

bool vt_is_translated(void)
{
    return copy.used && copy.base;
}

bool vt_is_translated_whole(void)
{
    return vt_is_translated() && !copy.done.refused;
}

void *vt_translated_code(void *code)
{
    uintptr_t offset = (uintptr_t)code - copy.base;

    if (!copy.used || !copy.base || offset >= copy.library_bytes || !copy.piece_at[offset])
        return code;
    return copy.area + copy.pieces[copy.piece_at[offset] - 1].copy;
}

const void *vt_translated_odd(const void *code)
{
    uintptr_t offset = vt_original_code(code) - copy.base;
    const struct piece *piece;

    if (!copy.base || offset >= copy.library_bytes || !copy.piece_at[offset])
        return NULL;
    piece = &copy.pieces[copy.piece_at[offset] - 1];
    return piece->shape == ODD_SITE ? copy.area + piece->copy : NULL;
}

uintptr_t vt_original_code(const void *code)
{
    uintptr_t offset = (uintptr_t)code - (uintptr_t)copy.area;
    uint32_t low = 0, high = copy.piece_count;

    if (!copy.base || offset >= copy.area_bytes)
        return (uintptr_t)code;
    /* The last piece that begins at or before it. */
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (copy.pieces[middle].copy <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return (uintptr_t)code;
    /* A call may be the last piece of its function: what follows it is a return address. */
    if (copy.pieces[low - 1].copy == offset)
        return copy.base + copy.pieces[low - 1].original;
    return copy.base + copy.pieces[low - 1].original + copy.pieces[low - 1].bytes;
}
