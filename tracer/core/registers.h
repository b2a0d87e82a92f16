/* General registers in the order of their encoding, whoever saved them. */
#ifndef VCHAN_TRACER_REGISTERS_H
#define VCHAN_TRACER_REGISTERS_H

#include <stdint.h>

enum { VT_RAX = 0, VT_RCX = 1, VT_RDX = 2, VT_RBX = 3, VT_RSP = 4, VT_RBP = 5, VT_RSI = 6, VT_RDI = 7 };

struct vt_registers {
    uint64_t general[16];
    uint64_t flags;
};

#define VT_CARRY 0x001
#define VT_PARITY 0x004
#define VT_ADJUST 0x010
#define VT_ZERO 0x040
#define VT_SIGN 0x080
#define VT_DIRECTION 0x400
#define VT_OVERFLOW 0x800
#define VT_ARITHMETIC_FLAGS \
    (VT_CARRY | VT_PARITY | VT_ADJUST | VT_ZERO | VT_SIGN | VT_OVERFLOW)

#endif
