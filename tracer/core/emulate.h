/*
 * One access, done on the real page and described.
 *
 * Knows nothing of channels, signals or logs: who caught the access and where it is written down
 * are other parts' matter.
 */
#ifndef VCHAN_TRACER_EMULATE_H
#define VCHAN_TRACER_EMULATE_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"
#include "record.h"
#include "registers.h"

struct vt_access {
    uint64_t t0;
    uint64_t t1;
    uint64_t old;    /* what was found; of a store what was really overwritten */
    uint64_t new_;   /* what was left */
    uint64_t loaded; /* RMW_PLAIN: what its load read; differs from `old` if an update was lost */
    uint64_t operand;
    uint8_t kind;  /* enum vt_kind */
    uint8_t op;    /* enum vt_op */
    uint8_t width; /* bytes */
    uint16_t flags;
    bool kept; /* nothing that orders is added: no stamps, and a store does not look what was there */
};

/*
 * Do `instruction` on the operand at `cell`, with its effects on registers and flags. Any form but
 * FILL with a repeat prefix. The caller moves the RIP. Of *access only `kept` is read.
 */
void vt_emulate(const struct vt_instruction *instruction, struct vt_registers *registers,
                void *cell, struct vt_access *access);

/* Whether an instruction only loads, and which kind of record (enum vt_kind) one is about to make. */
bool vt_is_load(const struct vt_instruction *instruction);
uint8_t vt_kind_ahead(const struct vt_instruction *instruction,
                      const struct vt_registers *registers, const void *cell);

/* What `width` bytes at `cell` hold. */
uint64_t vt_peek(const void *cell, unsigned width);

/* If the cell holds *expected, store value; else *expected becomes what it holds. */
bool vt_compare_exchange(void *cell, unsigned width, uint64_t *expected, uint64_t value);

/* Exchange `width` bytes at `cell` for `value`; what was there. */
uint64_t vt_exchange(void *cell, unsigned width, uint64_t value);

/* A plain load or store of 1, 2, 4 or 8 bytes, described in *access, of which `kept` is read. */
uint64_t vt_load(const void *cell, unsigned width, struct vt_access *access);
void vt_store(void *cell, unsigned width, uint64_t value, struct vt_access *access);

/*
 * Store access->width bytes; access gets the stamps and what was there, or is marked as not knowing
 * it if it is kept.
 */
void vt_overwrite(void *cell, uint64_t value, struct vt_access *access);

#endif
