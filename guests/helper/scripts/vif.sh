#!/bin/sh
# What xl runs when a guest's network interface is there ("online") or goes ("offline").
# The helper puts the interface on its bridge by itself; libxl only has to hear that it is done.
set -eu
if [ "${1:-}" = online ]; then
    exec xenstore-write "$XENBUS_PATH/hotplug-status" connected
fi
