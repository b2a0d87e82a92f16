#!/bin/sh
# For the start files of dom0 and of a guest: they read this file.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin

say() {
    echo "vchan-testbed: $*"
}

# Whatever fails while the machine starts ends the machine: the test bed then sees at once that
# it will not come, and shows the console's last lines.
end_if_failed() {
    status=$?
    [ "$status" -eq 0 ] && return
    say "start failed with status $status"
    poweroff -f
}

# wait_until SECONDS COMMAND...: for daemons and drivers that give no sign when they are ready.
wait_until() {
    turns=$(($1 * 20))
    shift
    until "$@" >/dev/null 2>&1; do
        turns=$((turns - 1))
        [ "$turns" -gt 0 ] || { say "gave up on: $*"; return 1; }
        usleep 50000
    done
}

mount_kernel_file_systems() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    # Without devpts `xl create` ends with "console tty: timed out".
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /tmp
}

load_xen_devices() {
    for module in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs; do
        modprobe "$module"
    done
    mount -t xenfs xenfs /proc/xen
}

# A failure is no reason to stop: agents report the file's last line, and the run then ends as
# "test bed failed".
test_this_domain() {
    vchan-selftest >/run/vchan-selftest.status || say "the self-test failed"
    say "self-test: $(cat /run/vchan-selftest.status)"
}
