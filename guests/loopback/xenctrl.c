/*
 * libxenctrl.so.4.17 over a loopback host: no more than what programs that use libxenvchan ask it,
 * which is whether a domain is there. It is for them alone; the test bed itself asks nothing of it.
 */
#include <xenctrl.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

struct xc_interface_core {
    struct host_view *view;
};

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger,
                                unsigned open_flags)
{
    struct host_view *view = host_of_process();
    xc_interface *handle = view ? calloc(1, sizeof(*handle)) : NULL;

    (void)logger, (void)dombuild_logger, (void)open_flags;
    if (handle)
        handle->view = view;
    return handle;
}

int xc_interface_close(xc_interface *handle)
{
    free(handle);
    return 0;
}

int xc_domain_getinfo(xc_interface *handle, uint32_t first_domid, unsigned int max_doms,
                      xc_dominfo_t *info)
{
    unsigned int found = 0;

    host_lock(handle->view->host);
    for (uint32_t domid = first_domid; domid < DOMAINS_MAX && found < max_doms; domid++) {
        if (!domain_exists(handle->view->host, domid))
            continue;
        memset(&info[found], 0, sizeof(info[found]));
        info[found].domid = domid;
        info[found++].running = 1;
    }
    host_unlock(handle->view->host);
    return (int)found;
}
