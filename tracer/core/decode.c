#include "decode.h"

#include <string.h>

#include "quiet.h"

struct reader {
    const uint8_t *start;
    const uint8_t *at;
    bool overrun;
};

struct prefixes {
    bool operand_16;
    bool locked;
    bool repeated;
    uint8_t rex; /* 0 if there is none */
};

#define REX_W 8
#define REX_R 4
#define REX_X 2
#define REX_B 1

static uint8_t next_byte(struct reader *reader)
{
    if (reader->at - reader->start >= VT_INSTRUCTION_BYTES_MAX) {
        reader->overrun = true;
        return 0;
    }
    return *reader->at++;
}

static int64_t next_signed(struct reader *reader, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)next_byte(reader) << (8 * i);
    /* Sign-extend from the highest bit that was read. */
    return (int64_t)(value << (64 - 8 * bytes)) >> (64 - 8 * bytes);
}

/* Prefixes and the first byte of the opcode. Segment prefixes but fs and gs mean nothing here. */
static bool read_prefixes(struct reader *reader, struct prefixes *found, uint8_t *opcode)
{
    for (;;) {
        uint8_t byte = next_byte(reader);

        switch (byte) {
        case 0x66:
            found->operand_16 = true;
            break;
        case 0xf0:
            found->locked = true;
            break;
        case 0xf2:
        case 0xf3:
            found->repeated = true;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            break;
        case 0x64: /* fs: */
        case 0x65: /* gs: */
        case 0x67: /* 32-bit address */
            return false;
        default:
            if ((byte & 0xf0) == 0x40) {
                /* REX counts only directly before the opcode. */
                found->rex = byte;
                byte = next_byte(reader);
                if ((byte & 0xf0) == 0x40)
                    return false;
            }
            *opcode = byte;
            return !reader->overrun;
        }
    }
}

/* ModRM, SIB and displacement. False if the operand is no memory or relative to the RIP. */
static bool read_memory_operand(struct reader *reader, const struct prefixes *found,
                                struct vt_instruction *out, uint8_t *extension)
{
    uint8_t modrm = next_byte(reader);
    uint8_t mod = modrm >> 6, low = modrm & 7;
    bool no_base = false;

    *extension = (modrm >> 3) & 7;
    out->reg = *extension | (found->rex & REX_R ? 8 : 0);
    out->index = -1;
    out->scale = 1;
    if (mod == 3 || (mod == 0 && low == 5))
        return false;
    if (low == 4) {
        uint8_t sib = next_byte(reader);
        uint8_t index = ((sib >> 3) & 7) | (found->rex & REX_X ? 8 : 0);

        low = sib & 7;
        no_base = mod == 0 && low == 5;
        if (index != 4) {
            out->index = (int8_t)index;
            out->scale = (uint8_t)(1 << (sib >> 6));
        }
    }
    out->base = no_base ? -1 : (int8_t)(low | (found->rex & REX_B ? 8 : 0));
    if (mod == 1)
        out->displacement = (int32_t)next_signed(reader, 1);
    else if (mod == 2 || no_base)
        out->displacement = (int32_t)next_signed(reader, 4);
    return true;
}

static uint8_t operand_width(const struct prefixes *found)
{
    if (found->rex & REX_W)
        return 8;
    return found->operand_16 ? 2 : 4;
}

/* A byte register 4 to 7 without REX is ah, ch, dh or bh. */
static void name_byte_register(const struct prefixes *found, struct vt_instruction *out)
{
    if (!found->rex && out->reg >= 4) {
        out->reg_high = true;
        out->reg -= 4;
    }
}

static void read_immediate(struct reader *reader, struct vt_instruction *out, unsigned bytes)
{
    out->has_immediate = true;
    out->immediate = next_signed(reader, bytes);
}

/* Immediates have at most four bytes; eight-byte operands get them sign-extended. */
static unsigned immediate_bytes(uint8_t width)
{
    return width == 8 ? 4 : width;
}

/* 00-3b: add or adc sbb and sub xor cmp, register with memory, both ways. */
static bool decode_alu(uint8_t opcode, struct vt_instruction *out)
{
    static const uint8_t alus[8] = { VT_ALU_ADD, VT_ALU_OR,  VT_ALU_ADC, VT_ALU_SBB,
                                     VT_ALU_AND, VT_ALU_SUB, VT_ALU_XOR, VT_ALU_CMP };

    out->alu = alus[opcode >> 3];
    if (opcode & 2)
        out->form = VT_FORM_LOAD_ALU;
    else
        out->form = out->alu == VT_ALU_CMP ? VT_FORM_COMPARE : VT_FORM_RMW;
    return true;
}

/* 80, 81, 83: the same with an immediate. */
static bool decode_alu_immediate(struct reader *reader, uint8_t opcode, uint8_t extension,
                                 struct vt_instruction *out)
{
    decode_alu((uint8_t)(extension << 3), out);
    read_immediate(reader, out, opcode == 0x81 ? immediate_bytes(out->width) : 1);
    return true;
}

/* f6, f7: test, not, neg; the multiplications and divisions are refused. */
static bool decode_unary_f6(struct reader *reader, uint8_t extension, struct vt_instruction *out)
{
    switch (extension) {
    case 0:
    case 1:
        out->form = VT_FORM_COMPARE;
        out->alu = VT_ALU_TEST;
        read_immediate(reader, out, immediate_bytes(out->width));
        return true;
    case 2:
        out->form = VT_FORM_RMW;
        out->alu = VT_ALU_NOT;
        return true;
    case 3:
        out->form = VT_FORM_RMW;
        out->alu = VT_ALU_NEG;
        return true;
    default:
        return false;
    }
}

static bool decode_one_byte(struct reader *reader, const struct prefixes *found, uint8_t opcode,
                            struct vt_instruction *out)
{
    uint8_t extension;

    /* In all of these the lowest bit of the opcode says: not a byte. */
    out->width = opcode & 1 ? operand_width(found) : 1;
    if (opcode == 0xaa || opcode == 0xab) {
        out->form = VT_FORM_FILL;
        out->reg = VT_RAX;
        out->base = VT_RDI;
        out->index = -1;
        out->scale = 1;
        out->repeated = found->repeated;
        return true;
    }
    if (opcode == 0x63) /* movsxd: always four bytes from memory */
        out->width = 4;
    if (!read_memory_operand(reader, found, out, &extension))
        return false;
    if (out->width == 1)
        name_byte_register(found, out);
    if (opcode < 0x40 && (opcode & 7) < 4)
        return decode_alu(opcode, out);
    switch (opcode) {
    case 0x63:
        out->form = VT_FORM_LOAD;
        out->sign_extended = true;
        out->register_width = operand_width(found);
        return found->rex & REX_W;
    case 0x80:
    case 0x81:
    case 0x83:
        return decode_alu_immediate(reader, opcode, extension, out);
    case 0x84:
    case 0x85:
        out->form = VT_FORM_COMPARE;
        out->alu = VT_ALU_TEST;
        return true;
    case 0x86:
    case 0x87:
        out->form = VT_FORM_EXCHANGE;
        return true;
    case 0x88:
    case 0x89:
        out->form = VT_FORM_STORE;
        return true;
    case 0x8a:
    case 0x8b:
        out->form = VT_FORM_LOAD;
        out->register_width = out->width;
        return true;
    case 0xc6:
    case 0xc7:
        out->form = VT_FORM_STORE;
        read_immediate(reader, out, immediate_bytes(out->width));
        return extension == 0;
    case 0xf6:
    case 0xf7:
        return decode_unary_f6(reader, extension, out);
    case 0xfe:
    case 0xff:
        out->form = VT_FORM_RMW;
        out->alu = extension == 0 ? VT_ALU_INC : VT_ALU_DEC;
        return extension <= 1;
    default:
        return false;
    }
}

/* 0f b6, b7, be, bf: movzx and movsx. */
static bool decode_extension(const struct prefixes *found, uint8_t opcode,
                             struct vt_instruction *out)
{
    out->form = VT_FORM_LOAD;
    out->width = opcode & 1 ? 2 : 1;
    out->sign_extended = opcode >= 0xbe;
    out->register_width = operand_width(found);
    return true;
}

/* 0f ba: bt, bts, btr, btc with the number of the bit as an immediate. */
static bool decode_bit(struct reader *reader, uint8_t extension, struct vt_instruction *out)
{
    static const uint8_t alus[4] = { VT_ALU_BT, VT_ALU_BTS, VT_ALU_BTR, VT_ALU_BTC };

    if (extension < 4)
        return false;
    out->alu = alus[extension - 4];
    out->form = extension == 4 ? VT_FORM_COMPARE : VT_FORM_RMW;
    read_immediate(reader, out, 1);
    out->immediate &= 8 * out->width - 1;
    return true;
}

static bool decode_two_bytes(struct reader *reader, const struct prefixes *found,
                             struct vt_instruction *out)
{
    uint8_t opcode = next_byte(reader), extension;

    /* With f2, f3 these opcodes are other instructions (popcnt, SSE); with 66 most are not. */
    if (found->repeated || !read_memory_operand(reader, found, out, &extension))
        return false;
    if ((opcode & 0xf0) == 0x40) {
        out->form = VT_FORM_LOAD_IF;
        out->condition = opcode & 15;
        out->width = out->register_width = operand_width(found);
        return true;
    }
    if ((opcode & 0xf0) == 0x90) {
        out->form = VT_FORM_STORE_IF;
        out->condition = opcode & 15;
        out->width = 1;
        return true;
    }
    switch (opcode) {
    case 0xb6:
    case 0xb7:
    case 0xbe:
    case 0xbf:
        return decode_extension(found, opcode, out);
    case 0xb0:
    case 0xb1:
        out->form = VT_FORM_COMPARE_EXCHANGE;
        break;
    case 0xc0:
    case 0xc1:
        out->form = VT_FORM_EXCHANGE_ADD;
        break;
    case 0xba:
        out->width = operand_width(found);
        return decode_bit(reader, extension, out);
    default:
        return false;
    }
    out->width = opcode & 1 ? operand_width(found) : 1;
    if (out->width == 1)
        name_byte_register(found, out);
    return true;
}

/* lock is allowed where memory is read, changed and written. */
static bool lock_is_allowed(const struct vt_instruction *out)
{
    return out->form == VT_FORM_RMW || out->form == VT_FORM_EXCHANGE ||
           out->form == VT_FORM_EXCHANGE_ADD || out->form == VT_FORM_COMPARE_EXCHANGE;
}

bool vt_decode(const uint8_t *code, struct vt_instruction *instruction)
{
    struct reader reader = { .start = code, .at = code };
    struct prefixes found = { 0 };
    uint8_t opcode;
    bool known;

    memset(instruction, 0, sizeof(*instruction));
    if (!read_prefixes(&reader, &found, &opcode))
        return false;
    instruction->locked = found.locked;
    known = opcode == 0x0f ? decode_two_bytes(&reader, &found, instruction)
                           : decode_one_byte(&reader, &found, opcode, instruction);
    instruction->length = (uint8_t)(reader.at - reader.start);
    /* rep before anything but stos has no meaning here (f3 before a store: xrelease). */
    if (found.repeated && instruction->form != VT_FORM_FILL)
        return false;
    return known && !reader.overrun && (!found.locked || lock_is_allowed(instruction));
}

uint64_t vt_effective_address(const struct vt_instruction *instruction,
                              const struct vt_registers *registers)
{
    uint64_t address = (uint64_t)(int64_t)instruction->displacement;

    if (instruction->base >= 0)
        address += registers->general[instruction->base];
    if (instruction->index >= 0)
        address += registers->general[instruction->index] * instruction->scale;
    return address;
}
