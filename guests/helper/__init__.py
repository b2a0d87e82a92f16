"""The helper: what acts on a Xen host, and nothing else does.

One file (a zipapp, see `build`) that runs in dom0 on Python 3.11, xl and the xenstore programs.
It makes domains and the network to reach the agents in them, passes the agents' frames on, counts
what is in use, and gives back what it took. It speaks frames over its standard input and output,
or over a virtio-serial port that outlives its clients.

Requests and answers (JSON messages with tag 0; every answer carries its request's "id"):

| request | fields | answer |
|---|---|---|
| hello | token, keep_domains | hello: facts, problems, domains |
| put | sha256, bytes | put: path, wanted; if wanted DATA frames (zlib) follow |
| put_end | sha256 | stored: path |
| create | name, config, kernel, ramdisk | created: name, domid |
| agent | tag, domid, seconds_max | agent: tag; frames with that tag follow |
| destroy | name (none: all of this helper's) | destroyed: names |
| states | | states: domains |
| counts | | counts: counts |
| consoles | | consoles: consoles |
| clock | realtime_ns, entropy (hex) | clock |
| remove_key | path | removed |
| quit | | bye |

What goes wrong is answered with "error": message, next_step, console. Without being asked the
helper says "lost" on an agent's tag when its domain is gone, then ends that tag.
"""
