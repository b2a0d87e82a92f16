/* What a program does to a channel by itself, as Qubes' wrapper of libxenvchan does. */
#include <libxenvchan.h>
#include <stdint.h>

int app_notify(struct libxenvchan *ctrl)
{
    return xenevtchn_notify(ctrl->event, ctrl->event_port);
}

uint32_t app_load(struct libxenvchan *ctrl, int offset)
{
    return *(volatile uint32_t *)((char *)ctrl->ring + offset);
}

int app_store_order(struct libxenvchan *ctrl, int order)
{
    *(volatile uint16_t *)&ctrl->ring->left_order = (uint16_t)order;
    return 0;
}

/* One 16-bit store over both live bytes, as compilers make of two. */
int app_store_both_live(struct libxenvchan *ctrl)
{
    *(volatile uint16_t *)&ctrl->ring->cli_live = 0x0102;
    return 0;
}

/* 16 bytes at once: nothing that a build of libxenvchan does. */
int app_vector_load(struct libxenvchan *ctrl)
{
    __asm__ __volatile__("movups (%0), %%xmm0" : : "r"(ctrl->ring) : "xmm0", "memory");
    return 0;
}
