/*
 * Arithmetic as the processor does it.
 *
 * Result and flags come from running the instruction itself on registers: a table of how each
 * flag is computed would be a second source of truth.
 */
#ifndef VCHAN_TRACER_ALU_H
#define VCHAN_TRACER_ALU_H

#include <stdbool.h>
#include <stdint.h>

enum vt_alu {
    VT_ALU_NONE = 0,
    VT_ALU_ADD,
    VT_ALU_OR,
    VT_ALU_ADC,
    VT_ALU_SBB,
    VT_ALU_AND,
    VT_ALU_SUB,
    VT_ALU_XOR,
    VT_ALU_CMP,
    VT_ALU_TEST,
    VT_ALU_INC,
    VT_ALU_DEC,
    VT_ALU_NOT,
    VT_ALU_NEG,
    VT_ALU_BT, /* the source is the number of a bit; not for bytes */
    VT_ALU_BTS,
    VT_ALU_BTR,
    VT_ALU_BTC,
};

/*
 * `first` op `second`, both of `width` bytes. *flags holds the arithmetic flags before and after;
 * its other bits stay. Returns the result, zero-extended; of cmp, test and bt it is `first`.
 */
uint64_t vt_alu(enum vt_alu alu, unsigned width, uint64_t first, uint64_t second,
                uint64_t *flags);

/* Whether a condition (the low four bits of jcc, cmovcc, setcc) holds. */
bool vt_condition(unsigned condition, uint64_t flags);

#endif
