/* What Python calls. Every int result is 0 or a negative errno. */
#ifndef VCHAN_TRACER_API_H
#define VCHAN_TRACER_API_H

#include <stdint.h>

struct tracer_look {
    int channels;           /* how many there are; the rest is about the first one */
    int has_page;
    uint8_t page[24];
    int event_fd;           /* -1: none */
    uint64_t records;
    uint8_t call;           /* of the first thread that is in one, else 0 */
};

int tracer_open(const char *path, int role, int domid, int peer_domid, uint64_t seed,
                const uint8_t *run_id, uint64_t bytes_max, const char *xen_version,
                const char *library, const char *kernel, const char *program);
int tracer_plan_drop(int bit, uint32_t nth);
int tracer_attach(void);
void tracer_detach(void);
int tracer_doorbell(void);
void tracer_payload(uint64_t position, uint64_t count, int ok);
void tracer_look(struct tracer_look *look);

#endif
