/*
 * The way from a stub of the translation to the routine that does the access.
 *
 * When a stub calls, the stack is, from its top:
 *
 *     +0    return address, in the stub
 *     +8    site
 *     +16   flags: overflow in the lowest byte, the other five in the second one (lahf)
 *     +24   rcx
 *     +32   rax
 *     +40   128 bytes that the library may be using (the red zone)
 *     +168  the top of the stack as the library left it
 *
 * and rcx has the operand's distance from the first decoy. All other registers are the library's.
 * Flags, rcx and rax are put back from there by the stub.
 */
#ifndef VCHAN_TRACER_TRAMPOLINE_H
#define VCHAN_TRACER_TRAMPOLINE_H

void vt_traced(void) __attribute__((visibility("hidden")));

#endif
