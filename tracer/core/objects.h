/*
 * Loaded objects and their tables of addresses (GOT).
 *
 * Interposing there works whoever loaded an object and when, by dlopen as well; LD_PRELOAD and
 * dlsym(RTLD_NEXT) do not.
 */
#ifndef VCHAN_TRACER_OBJECTS_H
#define VCHAN_TRACER_OBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vt_library {
    uintptr_t base;
    size_t bytes;  /* from base to the end of its last segment */
    char name[64]; /* soname and build id, for the header */
    char path[256];
};

/* The libxenvchan of this process, as vt_find_library found it. */
extern struct vt_library vt_library;

/* dlsym itself, for whoever stands in for it. */
extern void *(*vt_dlsym)(void *, const char *);

/* False if no libxenvchan is loaded. */
bool vt_find_library(void);

/* A function that is stood in for. */
struct vt_patch {
    const char *name;
    void **original;  /* becomes the function itself */
    void *in_library; /* its replacement where libxenvchan calls it, or NULL */
    void *in_others;  /* its replacement where anybody else does, or NULL */
};

/* Whether `code` is the function that the patch is of, in the library or in its copy. */
bool vt_is_original(const struct vt_patch *patch, void *code);

/*
 * Find each original, then put the replacements into every object but this one; those that are
 * there already stay. 0, or -ENOENT if a function is missing, -EACCES if its place in a table cannot
 * be written; then *name says which.
 */
int vt_patch_objects(const struct vt_patch *patches, size_t count, const char **name);

#endif
