/*
 * Where the functions of a loaded object lie: each one's frame description (.eh_frame) says so, of
 * static ones as well. That is what unwinders trust, so it holds for every build.
 */
#ifndef VCHAN_TRACER_FRAMES_H
#define VCHAN_TRACER_FRAMES_H

#include <stddef.h>
#include <stdint.h>

struct vt_function {
    uintptr_t start;
    size_t bytes;
};

/*
 * The functions of the object that is loaded at `base`, by their addresses; how many there are. The
 * caller frees *functions. 0 and NULL if there is no memory for them, or if the object has no table
 * of them, or one of a kind that we do not read.
 */
size_t vt_functions_of(uintptr_t base, struct vt_function **functions);

#endif
