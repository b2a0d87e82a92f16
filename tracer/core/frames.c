#include "frames.h"

#include <link.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * .eh_frame_hdr (Linux Standard Base, "Exception Frame Header"): four bytes that say how the rest
 * is written, a pointer, a count, and a table sorted by address. GNU ld and lld write all of them
 * as below; anything else is not read.
 */
#define HDR_VERSION 1
#define POINTER_ENCODING 0x1b /* 4 bytes, signed, relative to themselves */
#define COUNT_ENCODING 0x03   /* 4 bytes, unsigned */
#define TABLE_ENCODING 0x3b   /* 4 bytes, signed, relative to the header */

struct hdr {
    uint8_t version;
    uint8_t pointer_encoding;
    uint8_t count_encoding;
    uint8_t table_encoding;
    int32_t eh_frame;
    uint32_t count;
    struct {
        int32_t function;
        int32_t description;
    } rows[];
};

struct search {
    uintptr_t base;
    const struct hdr *hdr;
};

static int find_hdr(struct dl_phdr_info *object, size_t size, void *data)
{
    struct search *search = data;

    (void)size;
    if (object->dlpi_addr != search->base)
        return 0;
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
            search->hdr = (const void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr);
    return 1;
}

/* How many bytes of code a description is of; 0 if it is written in another way than relative. */
static size_t described_bytes(const uint8_t *description)
{
    uint32_t back, bytes;
    const uint8_t *common;
    const char *augmentation;

    /* Length, distance to what is common, start (relative), bytes. */
    memcpy(&back, description + 4, sizeof(back));
    common = description + 4 - back;
    augmentation = (const char *)common + 9;
    /*
     * "zR": data follows, and it is one byte that says how addresses are written. Before it stand
     * two alignments, the register of the return address and the data's length, a byte each.
     */
    if (strcmp(augmentation, "zR") || common[16] != POINTER_ENCODING)
        return 0;
    memcpy(&bytes, description + 12, sizeof(bytes));
    return bytes;
}

static bool is_readable(const struct hdr *hdr)
{
    return hdr->version == HDR_VERSION && hdr->pointer_encoding == POINTER_ENCODING &&
           hdr->count_encoding == COUNT_ENCODING && hdr->table_encoding == TABLE_ENCODING;
}

static int by_start(const void *first, const void *second)
{
    const struct vt_function *a = first, *b = second;

    return a->start < b->start ? -1 : a->start > b->start;
}

size_t vt_functions_of(uintptr_t base, struct vt_function **functions)
{
    struct search search = { .base = base };
    const uint8_t *origin;
    size_t count = 0;

    *functions = NULL;
    dl_iterate_phdr(find_hdr, &search);
    if (!search.hdr || !is_readable(search.hdr))
        return 0;
    origin = (const uint8_t *)search.hdr;
    *functions = calloc(search.hdr->count, sizeof(**functions));
    for (uint32_t i = 0; *functions && i < search.hdr->count; i++) {
        struct vt_function *function = *functions + count;

        function->start = (uintptr_t)(origin + search.hdr->rows[i].function);
        function->bytes = described_bytes(origin + search.hdr->rows[i].description);
        count += function->bytes != 0;
    }
    if (*functions)
        qsort(*functions, count, sizeof(**functions), by_start);
    return count;
}
