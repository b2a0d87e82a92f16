/* libxenvchan.h, which has no guard of its own (up to Xen 4.20). */
#ifndef VCHAN_TRACER_VCHAN_H
#define VCHAN_TRACER_VCHAN_H

#include <libxenvchan.h>

#endif
