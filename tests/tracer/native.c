/*
 * The processor itself beside the tracer's emulation: one instruction, run natively on one page
 * and emulated on another.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "decode.h"
#include "emulate.h"

#define PAGE_BYTES 4096

struct vt_registers native_area __attribute__((visibility("hidden")));
void *native_target __attribute__((visibility("hidden")));
void native_run(void);

#define EACH(macro)                                                                     \
    macro("rax", "0") macro("rcx", "8") macro("rdx", "16") macro("rbx", "24")           \
    macro("rbp", "40") macro("rsi", "48") macro("rdi", "56") macro("r8", "64")          \
    macro("r9", "72") macro("r10", "80") macro("r11", "88") macro("r12", "96")          \
    macro("r13", "104") macro("r14", "112") macro("r15", "120")
#define TAKE(name, at) "movq native_area+" at "(%rip), %" name "\n"
#define GIVE(name, at) "movq %" name ", native_area+" at "(%rip)\n"

__asm__(".text\n"
        ".globl native_run\n"
        "native_run:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "pushq native_area+128(%rip)\n"
        "popfq\n" EACH(TAKE) "call *native_target(%rip)\n" EACH(GIVE) "pushfq\n"
        "popq native_area+128(%rip)\n"
        "cld\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");

static uint8_t *code_page;

int native_init(void)
{
    code_page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return code_page == MAP_FAILED ? -1 : 0;
}

/* Runs `code`, which ends with ret, with `registers` in and out (rsp apart). */
void native_execute(const uint8_t *code, unsigned bytes, struct vt_registers *registers)
{
    memcpy(code_page, code, bytes);
    native_area = *registers;
    native_target = code_page;
    native_run();
    native_area.general[VT_RSP] = registers->general[VT_RSP];
    *registers = native_area;
}

/*
 * Emulates `code` whose operand lies in the page `there`, on the page `here` instead. Length of
 * the instruction; 0 if it is refused, -1 if its operand is not in the page.
 */
int native_emulate(const uint8_t *code, struct vt_registers *registers, uint8_t *there,
                   uint8_t *here, struct vt_access *access)
{
    struct vt_instruction instruction;
    uint64_t address;

    if (!vt_decode(code, &instruction))
        return 0;
    address = vt_effective_address(&instruction, registers);
    if (address - (uint64_t)there >= PAGE_BYTES)
        return -1;
    vt_emulate(&instruction, registers, here + (address - (uint64_t)there), access);
    return instruction.length;
}

struct race {
    const uint8_t *code;
    uint32_t *cell;
    struct vt_access *log;
    int count;
    pthread_barrier_t *start;
};

static void *race_thread(void *argument)
{
    struct race *race = argument;
    struct vt_instruction instruction;
    struct vt_registers registers = { 0 };

    if (!vt_decode(race->code, &instruction))
        return (void *)1;
    pthread_barrier_wait(race->start);
    for (int i = 0; i < race->count; i++)
        vt_emulate(&instruction, &registers, race->cell, &race->log[i]);
    return NULL;
}

/* Two threads emulate the same instruction on one cell, `count` times each. */
int native_race(const uint8_t *code, uint32_t *cell, struct vt_access *log, int count)
{
    pthread_barrier_t start;
    pthread_t threads[2];
    struct race races[2];
    int failed = 0;

    pthread_barrier_init(&start, NULL, 2);
    for (int i = 0; i < 2; i++) {
        races[i] = (struct race){ code, cell, log + i * count, count, &start };
        pthread_create(&threads[i], NULL, race_thread, &races[i]);
    }
    for (int i = 0; i < 2; i++) {
        void *result;

        pthread_join(threads[i], &result);
        failed |= result != NULL;
    }
    pthread_barrier_destroy(&start);
    return failed;
}
