/*
 * One record of the trace, and the numbers that stand in it.
 *
 * The same bytes are drawn in tracer/layout.py, with what each field holds for each kind; a test
 * compares the two.
 */
#ifndef VCHAN_TRACER_RECORD_H
#define VCHAN_TRACER_RECORD_H

#include <stddef.h>
#include <stdint.h>

struct vt_record {
    uint64_t t0;       /*  0  TSC before                      */
    uint64_t t1;       /*  8  TSC after                       */
    uint64_t old;      /* 16  value before                    */
    uint64_t new_;     /* 24  value after                     */
    uint32_t site;     /* 32  offset in the loaded library    */
    uint32_t operand;  /* 36  mask or addend                  */
    uint32_t seq;      /* 40  number in the thread, from 1    */
    uint32_t call_seq; /* 44  number of the API call          */
    uint16_t channel;  /* 48                                  */
    uint16_t thread;   /* 50                                  */
    uint16_t offset;   /* 52  in the shared page              */
    uint8_t kind;      /* 54                                  */
    uint8_t op;        /* 55                                  */
    uint8_t call;      /* 56                                  */
    uint8_t width;     /* 57  bytes                           */
    uint16_t flags;    /* 58                                  */
    uint32_t check;    /* 60  mix of the other 60 bytes       */
};

_Static_assert(sizeof(struct vt_record) == 64, "a record has 64 bytes");
_Static_assert(offsetof(struct vt_record, check) == 60, "the check stands last");

enum vt_kind {
    VT_LOAD = 1,
    VT_STORE = 2,
    VT_RMW_LOCKED = 3,
    VT_RMW_PLAIN = 4,
    VT_CMPXCHG_OK = 5,
    VT_CMPXCHG_FAIL = 6,
    VT_BULK = 7,
    VT_CALL_ENTER = 16,
    VT_CALL_EXIT = 17,
    VT_NOTIFY = 32,
    VT_PENDING_ENTER = 33,
    VT_PENDING_EXIT = 34,
    VT_UNMASK = 35,
    VT_BIND_UNBOUND = 36,
    VT_BIND_INTERDOMAIN = 37,
    VT_UNBIND = 38,
    VT_EVTCHN_CLOSE = 39,
    VT_SHARE_PAGE = 48,
    VT_MAP_PAGE = 49,
    VT_UNSHARE_PAGE = 50,
    VT_UNMAP_PAGE = 51,
    VT_SHARE_RING = 52,
    VT_MAP_RING = 53,
    VT_ATTACH = 64,
    VT_DETACH = 65,
    VT_FAULT = 66,
    VT_PAYLOAD = 67,
    VT_COPY = 68,
    VT_DIGEST = 69,
    VT_PAGE = 70,
};

enum vt_op {
    VT_OP_NONE = 0,
    VT_OP_OR = 1,
    VT_OP_AND = 2,
    VT_OP_ADD = 3,
    VT_OP_SUB = 4,
    VT_OP_XOR = 5,
    VT_OP_XCHG = 6,
    VT_OP_INC = 7,
    VT_OP_DEC = 8,
    VT_OP_MOV = 9,
};

enum vt_call {
    VT_CALL_NONE = 0,
    VT_CALL_SERVER_INIT = 1,
    VT_CALL_CLIENT_INIT = 2,
    VT_CALL_READ = 3,
    VT_CALL_WRITE = 4,
    VT_CALL_RECV = 5,
    VT_CALL_SEND = 6,
    VT_CALL_WAIT = 7,
    VT_CALL_CLOSE = 8,
    VT_CALL_IS_OPEN = 9,
    VT_CALL_DATA_READY = 10,
    VT_CALL_BUFFER_SPACE = 11,
    VT_CALL_FD_FOR_SELECT = 12,
};

#define VT_FLAG_FAULT_INJECTED 1
#define VT_FLAG_BY_APPLICATION 2
#define VT_FLAG_RETRIED 4
#define VT_FLAG_LOST_UPDATE 8
#define VT_FLAG_HELD 16
#define VT_FLAG_HELD_IN_VAIN 32
#define VT_FLAG_OLD_UNKNOWN 64
#define VT_FLAG_DIGEST_FOLLOWS 128
#define VT_FLAG_BY_SIGNAL 256

#define VT_NO_OFFSET 0xffff
#define VT_COPY_IN 0
#define VT_COPY_OUT 1

enum vt_fault {
    VT_FAULT_DROP = 1,
    VT_FAULT_DELAY = 2,
    VT_FAULT_REPEAT = 3,
    VT_FAULT_STALE = 4,
    VT_FAULT_CORRUPT = 5,
    VT_FAULT_KILL = 6,
    VT_FAULT_PAUSE = 7,
    VT_FAULT_UNPAUSE = 8,
    VT_FAULT_DESTROY = 9,
    VT_FAULT_PANIC = 10,
    VT_FAULT_SAVE = 11,
};

#endif
