/*
 * Functions that are stood in for: Xen's, as libxenvchan calls them (xen_calls.c), and
 * libxenvchan's, as everybody else calls them (api_calls.c).
 */
#ifndef VCHAN_TRACER_CALLS_H
#define VCHAN_TRACER_CALLS_H

#include <stddef.h>
#include <stdint.h>

#include "channels.h"
#include "clock.h"
#include "log.h"
#include "objects.h"

extern const struct vt_patch vt_xen_patches[];
extern const size_t vt_xen_patches_count;
extern const struct vt_patch vt_api_patches[];
extern const size_t vt_api_patches_count;

/* The original of a function, found before the first call of its replacement can come. */
#define VT_REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)

/* Its row in a table of patches. */
#define VT_PATCH(name_, in_library_, in_others_)                          \
    {                                                                     \
        .name = #name_, .original = (void **)&real_##name_,               \
        .in_library = (void *)(in_library_), .in_others = (void *)(in_others_), \
    }

/* Look for tables that are not patched yet: objects may have been loaded meanwhile. */
void vt_patch_again(void);

/* Called, if it is set, before a channel is opened: whoever records on demand begins there. */
extern void (*vt_before_init)(void);

/* Called, if it is set, when a call uses a channel that the parent of this process opened. */
extern void (*vt_on_inherited)(void);

/* Append a record of the channel if it is being recorded. */
void vt_log_of(const struct vt_channel *channel, struct vt_record *record);

/* Write down the digests that this thread has put off in its call. */
void vt_digest_late_copies(const struct vt_channel *channel);

/* From now on this is known to be the structure of `channel`: repair it and tell of it. */
void vt_attach(struct vt_channel *channel, struct libxenvchan *ctrl);

/* Tell that it is no more; the caller then destroys it. */
void vt_log_detached(const struct vt_channel *channel);

#endif
