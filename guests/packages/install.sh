#!/bin/sh
# Install the Debian packages of a list that this machine lacks.
#
#   install.sh LIST
#
# LIST has one package a line; '#' starts a comment. Nothing is installed, and nothing is said,
# when nothing is missing. A user who is not root and cannot use sudo is told the command to ask
# for. VCHAN_TESTBED_REPORT_SECONDS (15): how often it says how far it is.
# Exit status: 0 all there, 2 bad list, 4 could not install.
set -eu

list=${1:?"usage: install.sh LIST"}
[ -r "$list" ] || { echo "install.sh: cannot read $list" >&2; exit 2; }

wanted=$(sed -e 's/#.*//' "$list" | tr -s ' \t\n' ' ')

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "This machine has no dpkg. Install the counterparts of these Debian packages by hand:" >&2
    echo " $wanted" >&2
    exit 4
fi

missing=
for package in $wanted; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || :)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command="apt-get install --yes --no-install-recommends$missing"
echo "Debian packages that are missing:$missing"

may_use_sudo() {
    command -v sudo >/dev/null 2>&1 || return 1
    sudo -n true 2>/dev/null && return 0
    # With somebody there to answer, sudo may ask for the password; a job has nobody.
    [ -t 0 ] && [ -t 2 ] || return 1
    echo "They are installed with sudo, which may ask for your password."
    sudo -v
}

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif may_use_sudo; then
    as_root="sudo -n"
else
    echo "Only root can install them, and sudo cannot be used here." >&2
    echo "Next: have them installed with: sudo $command" >&2
    echo "      then type the same make command again." >&2
    exit 4
fi

log=$(mktemp)
reporter=
end() {
    [ -z "$reporter" ] || kill "$reporter" 2>/dev/null || :
    rm -f "$log"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

began=$(date +%s)
report_seconds=${VCHAN_TESTBED_REPORT_SECONDS:-15}
# This one is in the background, as apt-get would not hear of Ctrl-C there. Its sleep lets go of
# the output: whoever reads that would wait for it after the end.
# It ends with the log, too: the signal that ends it may come before it has let go of the traps of
# the shell that it was forked from, and is lost then.
report() {
    trap - EXIT INT TERM
    while sleep "$report_seconds" >/dev/null 2>&1 && [ -e "$log" ]; do
        echo "  $(($(date +%s) - began)) s: $(tail -n 1 "$log" | cut -c 1-80)"
    done
}

install_missing() {
    # The word splitting of $as_root and $command is meant.
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive $command >"$log" 2>&1
}

update_lists() {
    $as_root apt-get update >"$log" 2>&1
}

echo "apt-get fetches and installs them; this can take minutes ..."
report &
reporter=$!
if ! install_missing; then
    echo "Its lists are old or absent, so they are fetched first ..."
    if ! update_lists || ! install_missing; then
        echo "apt-get failed after $(($(date +%s) - began)) s. Its last lines:" >&2
        tail -n 15 "$log" >&2
        echo "Next: mend what they name, then type the same make command again." >&2
        exit 4
    fi
fi
echo "Debian packages: installed in $(($(date +%s) - began)) s"
