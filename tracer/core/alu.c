#include "alu.h"

#include "quiet.h"
#include "registers.h"

/*
 * The flags go in and out by the stack. The 128 bytes below the stack pointer may be in use by the
 * compiler (the red zone), so they are skipped.
 */
#define WITH_FLAGS(instruction)       \
    "leaq -128(%%rsp), %%rsp\n\t"     \
    "pushq %[flags]\n\t"              \
    "popfq\n\t" instruction "\n\t"    \
    "pushfq\n\t"                      \
    "popq %[flags]\n\t"               \
    "leaq 128(%%rsp), %%rsp"

#define TWO_OPERANDS(name, type)                                            \
    do {                                                                    \
        type a = (type)first, b = (type)second;                             \
        __asm__ __volatile__(WITH_FLAGS(name " %[b], %[a]")                 \
                             : [a] "+r"(a), [flags] "+r"(bits)              \
                             : [b] "r"(b)                                   \
                             : "cc", "memory");                             \
        result = a;                                                         \
    } while (0)

#define ONE_OPERAND(name, type)                                             \
    do {                                                                    \
        type a = (type)first;                                               \
        __asm__ __volatile__(WITH_FLAGS(name " %[a]")                       \
                             : [a] "+r"(a), [flags] "+r"(bits)              \
                             :                                              \
                             : "cc", "memory");                             \
        result = a;                                                         \
    } while (0)

#define EVERY_WIDTH(OPERANDS, name)           \
    switch (width) {                          \
    case 1:                                   \
        OPERANDS(name "b", uint8_t);          \
        break;                                \
    case 2:                                   \
        OPERANDS(name "w", uint16_t);         \
        break;                                \
    case 4:                                   \
        OPERANDS(name "l", uint32_t);         \
        break;                                \
    default:                                  \
        OPERANDS(name "q", uint64_t);         \
        break;                                \
    }                                         \
    break

/* Bit tests have no byte form. */
#define WIDE(OPERANDS, name)                  \
    switch (width) {                          \
    case 2:                                   \
        OPERANDS(name "w", uint16_t);         \
        break;                                \
    case 4:                                   \
        OPERANDS(name "l", uint32_t);         \
        break;                                \
    default:                                  \
        OPERANDS(name "q", uint64_t);         \
        break;                                \
    }                                         \
    break

uint64_t vt_alu(enum vt_alu alu, unsigned width, uint64_t first, uint64_t second,
                uint64_t *flags)
{
    /* Only arithmetic flags go in: a trap or direction flag set here would hit ourselves. */
    uint64_t bits = (*flags & VT_ARITHMETIC_FLAGS) | 2;
    uint64_t result = first;

    switch (alu) {
    case VT_ALU_NONE:
        break;
    case VT_ALU_ADD:
        EVERY_WIDTH(TWO_OPERANDS, "add");
    case VT_ALU_OR:
        EVERY_WIDTH(TWO_OPERANDS, "or");
    case VT_ALU_ADC:
        EVERY_WIDTH(TWO_OPERANDS, "adc");
    case VT_ALU_SBB:
        EVERY_WIDTH(TWO_OPERANDS, "sbb");
    case VT_ALU_AND:
        EVERY_WIDTH(TWO_OPERANDS, "and");
    case VT_ALU_SUB:
        EVERY_WIDTH(TWO_OPERANDS, "sub");
    case VT_ALU_XOR:
        EVERY_WIDTH(TWO_OPERANDS, "xor");
    case VT_ALU_CMP:
        EVERY_WIDTH(TWO_OPERANDS, "cmp");
    case VT_ALU_TEST:
        EVERY_WIDTH(TWO_OPERANDS, "test");
    case VT_ALU_INC:
        EVERY_WIDTH(ONE_OPERAND, "inc");
    case VT_ALU_DEC:
        EVERY_WIDTH(ONE_OPERAND, "dec");
    case VT_ALU_NOT:
        EVERY_WIDTH(ONE_OPERAND, "not");
    case VT_ALU_NEG:
        EVERY_WIDTH(ONE_OPERAND, "neg");
    case VT_ALU_BT:
        WIDE(TWO_OPERANDS, "bt");
    case VT_ALU_BTS:
        WIDE(TWO_OPERANDS, "bts");
    case VT_ALU_BTR:
        WIDE(TWO_OPERANDS, "btr");
    case VT_ALU_BTC:
        WIDE(TWO_OPERANDS, "btc");
    }
    *flags = (*flags & ~(uint64_t)VT_ARITHMETIC_FLAGS) | (bits & VT_ARITHMETIC_FLAGS);
    return result;
}

bool vt_condition(unsigned condition, uint64_t flags)
{
    bool carry = flags & VT_CARRY, zero = flags & VT_ZERO, sign = flags & VT_SIGN;
    bool overflow = flags & VT_OVERFLOW, parity = flags & VT_PARITY;
    bool holds;

    switch (condition >> 1) {
    case 0:
        holds = overflow;
        break;
    case 1:
        holds = carry;
        break;
    case 2:
        holds = zero;
        break;
    case 3:
        holds = carry || zero;
        break;
    case 4:
        holds = sign;
        break;
    case 5:
        holds = parity;
        break;
    case 6:
        holds = sign != overflow;
        break;
    default:
        holds = zero || sign != overflow;
        break;
    }
    return holds != (condition & 1);
}
