/*
 * The channels of this process: which decoy stands for which page, and whose handle is whose.
 *
 * Decoys are pages of one range that is never accessible, so a faulting address names its channel
 * by one subtraction.
 */
#ifndef VCHAN_TRACER_CHANNELS_H
#define VCHAN_TRACER_CHANNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vchan.h"

#define VT_CHANNELS_MAX 256
#define VT_PAGE_BYTES 4096
#define VT_PAGE_HEAD_BYTES 24

struct vt_ring {
    uint8_t *start;
    size_t bytes;
};

/* What this end has seen a cell hold; kept where faults are injected. */
struct vt_cell_seen {
    uint32_t now;
    uint32_t earlier; /* before the last change */
    uint8_t count;    /* how many of the two are known */
};

struct vt_channel {
    uint32_t session; /* of the recording in which it was made; 0: the place is free */
    uint16_t number;  /* in that recording */
    bool is_server;
    bool attached;          /* its structure is known and told of */
    bool in_init_or_close;  /* a call of that kind will end its life, if it has to end */
    bool inherited;         /* the parent of this process opened it */
    uint8_t *_Atomic page;  /* the real one; NULL before it is there and after */
    uint8_t *decoy;         /* its offsets mean the page's */
    struct libxenvchan *ctrl;
    xenevtchn_handle *event;
    int event_fd;
    uint32_t peer_domid;
    struct vt_ring rings[2]; /* that this end reads, that it writes */
    struct vt_cell_seen seen[VT_PAGE_HEAD_BYTES]; /* by the cell's offset */
};

/* Only calls are recorded: the library gets the page itself, and no decoy. */
extern bool vt_calls_only;

/* Reserve the range of decoys. 0 or a negative errno. */
int vt_channels_init(void);

/* After fork, in the child: whoever held the lock is not here, and all channels are inherited. */
void vt_channels_after_fork(void);

/* A new recording: numbers start again at 0. Channels that are open stay, unrecorded. */
void vt_channels_renumber(void);

/* A new channel with a decoy and no page, or NULL if there are too many. */
struct vt_channel *vt_channel_create(uint32_t session, bool is_server);
void vt_channel_destroy(struct vt_channel *channel);

/* NULL where there is none; also for NULL. */
struct vt_channel *vt_channel_of_ctrl(const struct libxenvchan *ctrl);
struct vt_channel *vt_channel_of_event(const xenevtchn_handle *event);
struct vt_channel *vt_channel_of_decoy(const void *address);
struct vt_channel *vt_channel_of_page(const void *page);
struct vt_channel *vt_channel_at(unsigned place);
bool vt_is_decoy(const void *address);

/* The first decoy; the others follow it, VT_PAGE_BYTES each. */
uintptr_t vt_decoys_start(void);

/* What `address` means: of one in a decoy the real one, of every other itself. */
void *vt_real_address(const void *address);

/* Set or clear the real page; a look never sees one that is being unmapped. */
void vt_channel_set_page(struct vt_channel *channel, uint8_t *page);

/* Copy the head of the page. False if there is none now. */
bool vt_channel_copy_head(const struct vt_channel *channel, uint8_t head[VT_PAGE_HEAD_BYTES]);

/* The ring with `address` in it: 0 read, 1 written, -1 none. */
int vt_channel_ring_of(const struct vt_channel *channel, const void *address, size_t *offset);

#endif
