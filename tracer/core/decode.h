/*
 * One x86-64 instruction with a memory operand, taken apart.
 *
 * Known are the forms that gcc and clang make of loads, stores and read-modify-writes of 1, 2, 4
 * and 8 bytes. Everything else is refused: a wrong guess would be a wrong trace.
 */
#ifndef VCHAN_TRACER_DECODE_H
#define VCHAN_TRACER_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "alu.h"
#include "registers.h"

#define VT_INSTRUCTION_BYTES_MAX 15

enum vt_form {
    VT_FORM_NONE = 0,
    VT_FORM_LOAD,         /* register := memory, extended to register_width */
    VT_FORM_LOAD_IF,      /* cmovcc: loads always, moves if */
    VT_FORM_LOAD_ALU,     /* register := register op memory (cmp: flags only) */
    VT_FORM_COMPARE,      /* flags of memory op source: cmp, test, bt */
    VT_FORM_STORE,        /* memory := source */
    VT_FORM_STORE_IF,     /* setcc */
    VT_FORM_RMW,          /* memory := memory op source */
    VT_FORM_EXCHANGE,     /* xchg, locked with or without the prefix */
    VT_FORM_EXCHANGE_ADD, /* xadd */
    VT_FORM_COMPARE_EXCHANGE,
    VT_FORM_FILL, /* stos, rep stos */
};

struct vt_instruction {
    uint8_t length;
    uint8_t form;           /* enum vt_form */
    uint8_t alu;            /* enum vt_alu, for LOAD_ALU, COMPARE and RMW */
    uint8_t width;          /* bytes of the memory operand */
    uint8_t register_width; /* bytes of the register written by LOAD */
    uint8_t reg;            /* register operand, 0 to 15 */
    bool reg_high;          /* ah, ch, dh, bh: the second byte of registers 0 to 3 */
    bool sign_extended;
    bool locked;
    bool repeated;
    bool has_immediate; /* the source is `immediate`, not the register */
    uint8_t condition;  /* low four bits of cmovcc, setcc */
    int64_t immediate;  /* sign-extended */
    int8_t base;        /* register, or -1 */
    int8_t index;       /* register, or -1 */
    uint8_t scale;      /* 1, 2, 4, 8 */
    int32_t displacement;
};

/* Takes apart what stands at `code`, reading only the bytes that belong to it. False: refused. */
bool vt_decode(const uint8_t *code, struct vt_instruction *instruction);

/* The address of its memory operand. */
uint64_t vt_effective_address(const struct vt_instruction *instruction,
                              const struct vt_registers *registers);

#endif
