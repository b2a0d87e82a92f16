"""Where a channel's keys are in xenstore.

libxenvchan's server makes two keys, ring-ref and event-channel, below a path that both ends are
told, and lets the peer read them. A guest may write below its own `data` node (libxl gives it that
one), and xenstore checks permissions of the node that is read, not of those above it. So the path
is one in the server's `data`; at close the library removes it, but no folder above it.
"""

from __future__ import annotations

CHANNEL_PREFIX = "vchan-"


def channel_path(server_domid: int, run_id: str) -> str:
    """The path of a run's channel: absolute, as the client needs it."""
    return f"/local/domain/{server_domid}/data/{CHANNEL_PREFIX}{run_id[:8]}"


def is_channel_key(path: str) -> bool:
    """Whether a path of xenstore is a channel's, or lies below one's."""
    parts = path.split("/")
    return (
        parts[1:3] == ["local", "domain"]
        and parts[4:5] == ["data"]
        and (len(parts) > 5 and parts[5].startswith(CHANNEL_PREFIX))
    )
