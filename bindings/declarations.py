"""First layer: what cffi is told of libxenvchan.

Only what the header promises: functions, and two small ones of our own for the fields that a
caller has to set or wants to know. The structure stays opaque to Python, so neither the bit-fields
that were signed up to Xen 4.17 nor the field that 4.17 added can be read in the wrong place: the
compiler meets the header of the library that it links with.

Source: tools/libs/vchan/include/libxenvchan.h, Xen 4.14 to 4.20.
"""

from __future__ import annotations

CDEF = """
struct libxenvchan;
struct xentoollog_logger;

struct libxenvchan *libxenvchan_server_init(struct xentoollog_logger *logger, int domain,
                                            const char *xs_path,
                                            size_t read_min, size_t write_min);
struct libxenvchan *libxenvchan_client_init(struct xentoollog_logger *logger, int domain,
                                            const char *xs_path);
void libxenvchan_close(struct libxenvchan *ctrl);
int libxenvchan_recv(struct libxenvchan *ctrl, void *data, size_t size);
int libxenvchan_read(struct libxenvchan *ctrl, void *data, size_t size);
int libxenvchan_send(struct libxenvchan *ctrl, const void *data, size_t size);
int libxenvchan_write(struct libxenvchan *ctrl, const void *data, size_t size);
int libxenvchan_wait(struct libxenvchan *ctrl);
int libxenvchan_fd_for_select(struct libxenvchan *ctrl);
int libxenvchan_is_open(struct libxenvchan *ctrl);
int libxenvchan_data_ready(struct libxenvchan *ctrl);
int libxenvchan_buffer_space(struct libxenvchan *ctrl);

void vchan_set_blocking(struct libxenvchan *ctrl, int blocking);
int vchan_ring_order(struct libxenvchan *ctrl, int write_ring);
void vchan_set_indices(struct libxenvchan *ctrl, int write_ring, uint32_t index);
const char *vchan_soname_at_build(void);
"""

SOURCE = """
#include <libxenvchan.h>

/* Neither init sets `blocking`, and both take the structure from malloc. */
static void vchan_set_blocking(struct libxenvchan *ctrl, int blocking)
{
    ctrl->blocking = blocking ? 1 : 0;
}

/* The library's own copy of the order, not the one in the shared page. */
static int vchan_ring_order(struct libxenvchan *ctrl, int write_ring)
{
    return write_ring ? ctrl->write.order : ctrl->read.order;
}

/* Both indices of an empty ring; volatile, so that it is two stores and in this order. */
static void vchan_set_indices(struct libxenvchan *ctrl, int write_ring, uint32_t index)
{
    volatile struct ring_shared *shared = write_ring ? ctrl->write.shr : ctrl->read.shr;

    shared->prod = index;
    shared->cons = index;
}

static const char *vchan_soname_at_build(void)
{
    return VCHAN_SONAME;
}
"""
