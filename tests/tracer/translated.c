/*
 * The translation beside the processor: a library of functions of one instruction each, run as they
 * are on a page that can be accessed, and translated on a decoy at the same address.
 *
 * Built with all of the tracer's core into one shared object, and loaded into a process of its own.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "access.h"
#include "channels.h"
#include "objects.h"
#include "quiet.h"
#include "registers.h"
#include "segv.h"
#include "translate.h"

static struct vt_registers area __attribute__((used));
static void *target __attribute__((used));
static struct vt_channel *channel;
static struct vt_translation done;
void run_at(void);

#define EACH(macro)                                                                     \
    macro("rax", "0") macro("rcx", "8") macro("rdx", "16") macro("rbx", "24")           \
    macro("rbp", "40") macro("rsi", "48") macro("rdi", "56") macro("r8", "64")          \
    macro("r9", "72") macro("r10", "80") macro("r11", "88") macro("r12", "96")          \
    macro("r13", "104") macro("r14", "112") macro("r15", "120")
#define TAKE(name, at) "movq area+" at "(%rip), %" name "\n"
#define GIVE(name, at) "movq %" name ", area+" at "(%rip)\n"

__asm__(".text\n"
        "run_at:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "pushq area+128(%rip)\n"
        "popfq\n" EACH(TAKE) "call *target(%rip)\n" EACH(GIVE) "pushfq\n"
        "popq area+128(%rip)\n"
        "cld\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");

/* Translate what is loaded, with a channel whose page is `page`. 0, or a negative errno. */
int forms_init(uint8_t *page)
{
    int error;

    if (!vt_find_library())
        return -ENOENT;
    error = vt_channels_init();
    if (!error)
        error = vt_translate_library(&done);
    if (!error)
        error = vt_segv_take();
    channel = vt_channel_create(1, true);
    vt_channel_set_page(channel, page);
    return error;
}

uint8_t *forms_decoy(void)
{
    return channel->decoy;
}

unsigned forms_translated(void)
{
    return done.functions;
}

unsigned forms_refused(void)
{
    return done.refused;
}

unsigned forms_sites(void)
{
    return done.sites;
}

/* Whether the function at `code` has a copy, and that leads back to where it is from. */
bool forms_leads_back(uint8_t *code)
{
    uint8_t *copy = vt_translated_code(code);

    return copy != code && vt_original_code(copy) == (uintptr_t)code;
}

/* Run the function, as it is or translated, with `registers` in and out (rsp apart). */
void forms_run(void *code, bool translated, struct vt_registers *registers)
{
    area = *registers;
    target = translated ? vt_translated_code(code) : code;
    run_at();
    area.general[VT_RSP] = registers->general[VT_RSP];
    *registers = area;
}

/* Let the decoy be a page like others, or none. */
int forms_open(bool open)
{
    return mprotect(channel->decoy, VT_PAGE_BYTES, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}


#define VECTORS(macro)                                                                     \
    macro("0") macro("1") macro("2") macro("3") macro("4") macro("5") macro("6") macro("7") \
    macro("8") macro("9") macro("10") macro("11") macro("12") macro("13") macro("14") macro("15")
#define LOAD_AVX(n) "vmovdqu 32*" n "(%[in]), %%ymm" n "\n"
#define SAVE_AVX(n) "vmovdqu %%ymm" n ", 32*" n "(%[out])\n"
#define LOAD_SSE(n) "movdqu 32*" n "(%[in]), %%xmm" n "\n"
#define SAVE_SSE(n) "movdqu %%xmm" n ", 32*" n "(%[out])\n"

static void load_vectors(const uint64_t *in)
{
    if (__builtin_cpu_supports("avx"))
        __asm__ __volatile__(VECTORS(LOAD_AVX) : : [in] "r"(in) : "memory");
    else
        __asm__ __volatile__(VECTORS(LOAD_SSE) : : [in] "r"(in) : "memory");
}

static void save_vectors(uint64_t *out)
{
    if (__builtin_cpu_supports("avx"))
        __asm__ __volatile__(VECTORS(SAVE_AVX) : : [out] "r"(out) : "memory");
    else
        __asm__ __volatile__(VECTORS(SAVE_SSE) : : [out] "r"(out) : "memory");
}

static void clobber(void *argument)
{
    load_vectors(argument);
}

/* Vector registers hold `in` before vt_aside(), whose work loads `other`, and `out` behind it. */
void forms_aside(const uint64_t *in, uint64_t *other, uint64_t *out)
{
    load_vectors(in);
    vt_aside(clobber, other);
    save_vectors(out);
}
