/*
 * Included behind all other headers by what a stub of the translation may come to call: no vector
 * register is used there, because the library may have something in any of them.
 *
 * What has to leave these files (the kernel by way of libc, which may use what it likes) does so
 * through vt_aside().
 */
#ifndef VCHAN_TRACER_QUIET_H
#define VCHAN_TRACER_QUIET_H

/* Do `work` and put the vector registers back as they were. errno is the caller's matter. */
void vt_aside(void (*work)(void *), void *argument);

#pragma GCC target("general-regs-only")

#endif
