/* What a program does to a channel by itself, as Qubes' wrapper of libxenvchan does. */
#include <libxenvchan.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

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

/*
 * Two instructions that stand at the same place, one after the other, as when a library is unloaded
 * and another one loaded: loads left.cons and left.prod. Both values, the second one above.
 */
uint64_t app_load_by_two_codes(struct libxenvchan *ctrl)
{
    static const unsigned char codes[2][4] = {
        { 0x8b, 0x07, 0xc3 },       /* mov (%rdi), %eax; ret */
        { 0x8b, 0x47, 0x04, 0xc3 }, /* mov 4(%rdi), %eax; ret */
    };
    unsigned char *place = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t loaded = 0;

    if (place == MAP_FAILED)
        return UINT64_MAX;
    for (int i = 0; i < 2; i++) {
        memcpy(place, codes[i], sizeof(codes[i]));
        loaded |= (uint64_t)((uint32_t(*)(void *))(uintptr_t)place)(ctrl->ring) << (32 * i);
    }
    munmap(place, 4096);
    return loaded;
}
