/*
 * void registers_hold_in_cpu(struct area *area, const struct timespec *sleep, int has_avx);
 *
 * Fills the registers from `area`, sleeps in the kernel with all of them full, and stores what
 * they then hold back into `area`. No compiler stands between the three.
 *
 * Offsets of `struct area` (registers.c asserts them):
 *      0 xmm0-15 | 256 upper halves of ymm0-15 | 512 rbx r12 r13 r14 r15 | 560 st7-0, 16 B each
 */
#include <sys/syscall.h>

#define FOR_16(DO) \
	DO(0); DO(1); DO(2); DO(3); DO(4); DO(5); DO(6); DO(7); \
	DO(8); DO(9); DO(10); DO(11); DO(12); DO(13); DO(14); DO(15)
#define FOR_8(DO) DO(0); DO(1); DO(2); DO(3); DO(4); DO(5); DO(6); DO(7)

#define LOAD_XMM(n)  movups 16*n(%rbp), %xmm##n
#define STORE_XMM(n) movups %xmm##n, 16*n(%rbp)
#define LOAD_YMM(n)  vinsertf128 $1, 256+16*n(%rbp), %ymm##n, %ymm##n
#define STORE_YMM(n) vextractf128 $1, %ymm##n, 256+16*n(%rbp)
#define LOAD_X87(n)  fldt 560+16*n(%rbp)
#define STORE_X87(n) fstpt 560+16*(7-n)(%rbp)

	.text
	.globl	registers_hold_in_cpu
	.type	registers_hold_in_cpu, @function
registers_hold_in_cpu:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdx
	mov	%rdi, %rbp

	FOR_8(LOAD_X87)
	FOR_16(LOAD_XMM)
	test	%edx, %edx
	jz	1f
	FOR_16(LOAD_YMM)
1:	mov	512(%rbp), %rbx
	mov	520(%rbp), %r12
	mov	528(%rbp), %r13
	mov	536(%rbp), %r14
	mov	544(%rbp), %r15

	mov	%rsi, %rdi
	xor	%esi, %esi
	mov	$SYS_nanosleep, %eax
	syscall

	mov	%rbx, 512(%rbp)
	mov	%r12, 520(%rbp)
	mov	%r13, 528(%rbp)
	mov	%r14, 536(%rbp)
	mov	%r15, 544(%rbp)
	FOR_16(STORE_XMM)
	FOR_8(STORE_X87)
	pop	%rdx
	test	%edx, %edx
	jz	2f
	FOR_16(STORE_YMM)
	vzeroupper
2:	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.size	registers_hold_in_cpu, .-registers_hold_in_cpu
	.section .note.GNU-stack,"",@progbits
