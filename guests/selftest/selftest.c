/*
 * vchan-selftest: do this domain's registers, memory and clocks hold?
 *
 *   vchan-selftest                 test for about a third of a second, print one line
 *   vchan-selftest --beside FILE   test on and on, print the line to FILE when something fails
 *
 * The line starts with "ok" or "failed". Exit status: 0 ok, 1 failed, 2 wrong arguments; with
 * --beside it ends only at a failure or when it is killed.
 *
 * Why: an emulator may run a guest wrongly without any sign. QEMU's XSAVE with Xen's lazy switch
 * of the FPU changed x87, SSE and AVX registers of programs that were switched away (QEMU 7.2 and
 * 10.0, Xen 4.17 and 4.20), and memcpy uses these: a payload that arrives changed could be that.
 * Such a run must not be blamed on the channel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "registers.h"

#define MEMORY_BYTES (2u << 20)
#define BOOT_ROUNDS 12
#define BOOT_SLEEP_NS 5000000L
/* Beside a workload: few wake-ups, most of each spent asleep with the registers full. */
#define BESIDE_SLEEP_NS 100000000L
#define MESSAGE_BYTES 200

struct clocks {
	uint64_t monotonic_ns;
	uint64_t tsc;
};

static struct clocks read_clocks(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (struct clocks){
		.monotonic_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
		.tsc = __rdtsc(),
	};
}

static bool check_clocks(struct clocks *last, char *message)
{
	struct clocks now = read_clocks();

	if (now.monotonic_ns < last->monotonic_ns || now.tsc < last->tsc) {
		snprintf(message, MESSAGE_BYTES,
			 "clock: went back, %" PRIu64 " -> %" PRIu64 " ns, TSC %" PRIu64
			 " -> %" PRIu64,
			 last->monotonic_ns, now.monotonic_ns, last->tsc, now.tsc);
		return false;
	}
	*last = now;
	return true;
}

static void fill_memory(uint64_t *memory, uint64_t seed)
{
	for (size_t i = 0; i < MEMORY_BYTES / sizeof(*memory); i++)
		memory[i] = random_next(&seed);
}

static bool check_memory(const uint64_t *memory, uint64_t seed, char *message)
{
	for (size_t i = 0; i < MEMORY_BYTES / sizeof(*memory); i++) {
		uint64_t due = random_next(&seed);

		if (memory[i] != due) {
			snprintf(message, MESSAGE_BYTES,
				 "memory: word %zu is %016" PRIx64 ", %016" PRIx64 " was written", i,
				 memory[i], due);
			return false;
		}
	}
	return true;
}

/* Rounds of all tests; `rounds` 0 is for ever. Returns false with a message at a failure. */
static bool run(unsigned long rounds, long sleep_ns, char *message)
{
	uint64_t random = __rdtsc() | 1, seed = random;
	struct clocks last = read_clocks();
	uint64_t *memory = malloc(MEMORY_BYTES);
	bool ok = memory != NULL;

	if (!ok)
		snprintf(message, MESSAGE_BYTES, "memory: none to be had");
	for (unsigned long round = 0; ok && (rounds == 0 || round < rounds); round++) {
		/* The memory is gone through now and then only: it costs far more than the rest. */
		if (round % BOOT_ROUNDS == 0) {
			seed = random_next(&random);
			fill_memory(memory, seed);
		}
		ok = registers_hold(&random, sleep_ns, message, MESSAGE_BYTES) &&
		     check_clocks(&last, message);
		if (ok && round % BOOT_ROUNDS == BOOT_ROUNDS - 1)
			ok = check_memory(memory, seed, message);
	}
	free(memory);
	return ok;
}

int main(int argc, char **argv)
{
	char message[MESSAGE_BYTES] = "";
	FILE *status = stdout;
	bool beside = argc == 3 && strcmp(argv[1], "--beside") == 0;
	bool ok;

	if (argc != 1 && !beside) {
		fprintf(stderr, "usage: vchan-selftest [--beside FILE]\n");
		return 2;
	}
	ok = run(beside ? 0 : BOOT_ROUNDS, beside ? BESIDE_SLEEP_NS : BOOT_SLEEP_NS, message);
	if (beside) {
		status = fopen(argv[2], "a");
		if (status == NULL) {
			fprintf(stderr, "vchan-selftest: %s: %s\n", argv[2], strerror(errno));
			return 1;
		}
	}
	if (ok)
		fprintf(status, "ok registers, memory and clocks held\n");
	else
		fprintf(status, "failed %s\n", message);
	return fclose(status) == 0 && ok ? 0 : 1;
}
