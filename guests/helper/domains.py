"""Domains by xl: made paused, with an open console, told apart from everybody else's.

No domain is touched that this helper did not make. Each is known by its domid and by its name,
vtb-TOKEN-LABEL, in which TOKEN is this helper's own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.helper.consoles import Console, open_terminal
from vchan_testbed.guests.helper.files import Files
from vchan_testbed.guests.helper.limits import Use, check_use, read_limits
from vchan_testbed.guests.helper.network import Network, link_local

NAME_PREFIX = "vtb-"
CREATE_SECONDS_MAX = 300.0
SAVE_SECONDS_MAX = 300.0
GONE_SECONDS_MAX = 60.0
ACTS = ("pause", "unpause", "destroy", "save")
"""What may be done to a domain for an experiment: commands of xl (saved is restored, too)."""
DEAD_STATES = ("gone", "crashed", "shut down", "dying")
LAST_WORDS_KEPT = 8
EXTRA = "console=hvc0"


@dataclass(frozen=True)
class Config:
    """What a domain is to be."""

    type: str
    """"pv" or "pvh"."""
    memory_mib: int
    vcpus: int
    cpus: str | None = None
    """The CPUs to stay on, as xl writes them."""


@dataclass
class OwnDomain:
    """A domain that this helper made."""

    label: str
    name: str
    domid: int
    config: Config
    mac: str
    console: Console
    state: str = "alive"
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its console spoke or the network changed: a reason to try again to reach it."""

    @property
    def title(self) -> str:
        """What its console is called."""
        return f"{self.label}-{self.domid}"

    @property
    def address(self) -> str:
        """Its link-local address on the control network."""
        return link_local(self.mac)


class Domains:
    """All domains of this helper; `on_dead(domain)` is called when one has died by itself."""

    def __init__(
        self,
        token: str,
        files: Files,
        on_dead: Callable[[OwnDomain], None],
        on_note: Callable[[str], None],
    ) -> None:
        self._token = token
        self._files = files
        self._on_dead = on_dead
        self._on_note = on_note
        self._own: dict[str, OwnDomain] = {}
        self._last_words: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self.network = Network(on_change=self._stir)

    @property
    def own(self) -> list[OwnDomain]:
        """The domains that were made and not destroyed."""
        return list(self._own.values())

    def by_domid(self, domid: int) -> OwnDomain:
        """One of them. Raises TestbedError for any other."""
        for domain in self._own.values():
            if domain.domid == domid:
                return domain
        raise TestbedError(
            f"Domain {domid} is none of this helper's.", next_step="Make it first (create)."
        )

    async def create(self, label: str, config: Config, kernel: str, ramdisk: str) -> OwnDomain:
        """Make a domain and let it run. Raises TestbedError; nothing of it is left then."""
        async with self._lock:
            if not re.fullmatch(r"[a-z0-9-]{1,32}", label) or label in self._own:
                raise TestbedError(
                    f"A domain cannot be called {label!r} here.", next_step="Destroy the old one."
                )
            await self._check_limits(config)
            await self.network.open()
            self._watch()
            name = f"{NAME_PREFIX}{self._token}-{label}"
            mac = self.network.new_mac()
            path = self._files.folder / f"{label}.cfg"
            path.write_text(self._config_text(name, mac, config, kernel, ramdisk))
            try:
                domain = await self._create_paused(label, name, mac, config, path)
                await self.network.enslave(f"vif{domain.domid}.0")
                await xl.run("xl", "unpause", str(domain.domid))
            except BaseException:
                await self._destroy_if_there(name)
                self._forget(label)
                await self._close_if_empty()
                raise
            return domain

    async def destroy(self, label: str | None = None) -> list[str]:
        """Destroy one domain or all, and wait until they are gone. Returns their names."""
        async with self._lock:
            labels = [label] if label is not None else list(self._own)
            chosen = [self._own[each] for each in labels if each in self._own]
            for domain in chosen:
                # Its end is no news now: nobody is told of it.
                domain.state = "gone"
                await self._destroy_if_there(domain.name)
                self._forget(domain.label)
            await self._wait_until_gone({domain.name for domain in chosen})
            await self._close_if_empty()
            return [domain.name for domain in chosen]

    async def act(self, domid: int, do: str) -> None:
        """Pause, unpause or destroy one of them past this book: its end is news like any other.

        Raises TestbedError.
        """
        domain = self.by_domid(domid)
        if do not in ACTS:
            raise TestbedError(
                f"The helper does not {do} a domain.",
                next_step=f"Ask for one of: {', '.join(ACTS)}.",
            )
        if do == "save":
            await self._save_and_restore(domain)
        else:
            await xl.run("xl", do, str(domain.domid))

    async def _save_and_restore(self, domain: OwnDomain) -> None:
        """It comes back with the same name and another domid: to its peers it is gone."""
        state = self._files.folder / f"{domain.label}.save"
        try:
            await xl.run("xl", "save", str(domain.domid), str(state), seconds_max=SAVE_SECONDS_MAX)
            # -e: no process stays behind to act on the domain's end.
            await xl.run("xl", "restore", "-e", str(state), seconds_max=SAVE_SECONDS_MAX)
        finally:
            state.unlink(missing_ok=True)

    async def refresh(self) -> None:
        """Look at all of them now; who has died is told of."""
        if not self._own:
            return
        there = {domain.name: domain.state for domain in await xl.list_domains()}
        for domain in self.own:
            before, domain.state = domain.state, there.get(domain.name, "gone")
            if domain.state in DEAD_STATES and before not in DEAD_STATES:
                self._on_dead(domain)

    def consoles(self) -> dict[str, str]:
        """What the guests said, by label and domid; of those that are gone the last ones too."""
        return {**self._last_words, **{d.title: d.console.text for d in self.own}}

    async def close(self) -> None:
        """Destroy all and remove the network."""
        await self.destroy()

    async def _check_limits(self, config: Config) -> None:
        limits = read_limits()
        if limits is None:
            return
        test = [d for d in await xl.list_domains() if d.name.startswith(NAME_PREFIX)]
        used = Use(sum(d.memory_mib for d in test), sum(d.vcpus for d in test), len(test))
        check_use(limits, used, Use(config.memory_mib, config.vcpus, 1))

    def _config_text(self, name: str, mac: str, config: Config, kernel: str, ramdisk: str) -> str:
        vif = f"mac={mac},bridge={self.network.bridge},script={self._files.script('vif.sh')}"
        # A domain that died stays to be looked at: one that came back would have a new domid.
        stay = dict.fromkeys(("on_poweroff", "on_reboot", "on_watchdog", "on_crash"), "preserve")
        texts = {
            "name": name,
            "type": config.type,
            "kernel": kernel,
            "ramdisk": ramdisk,
            "extra": EXTRA,
            # Else Xen emulates or scales the TSC: slow for PV, deadly for PVH under TCG (4.17).
            "tsc_mode": "native",
            **stay,
            **({"cpus": config.cpus} if config.cpus is not None else {}),
        }
        if any('"' in text or "\n" in text for text in texts.values()):
            raise TestbedError("A domain's configuration holds a quote.", next_step="Leave it out.")
        lines = [f'{key}="{text}"' for key, text in texts.items()]
        lines += [f"memory={config.memory_mib}", f"vcpus={config.vcpus}", f'vif=["{vif}"]']
        return "\n".join(lines) + "\n"

    async def _create_paused(
        self, label: str, name: str, mac: str, config: Config, path: Path
    ) -> OwnDomain:
        # -e: no process stays behind to act on the domain's end.
        command = ("xl", "create", "-q", "-p", "-e", str(path))
        try:
            await xl.run(*command, seconds_max=CREATE_SECONDS_MAX)
        except xl.CommandFailed as error:
            if "timed out" not in error.output and "timeout" not in error.output:
                raise _create_failed(error) from error
            # libxl's time-outs (10 s, 40 s) are compiled in, and a busy emulator is slower.
            self._on_note(f"libxl timed out while it made {name}: once more")
            await self._destroy_if_there(name)
            try:
                await xl.run(*command, seconds_max=CREATE_SECONDS_MAX)
            except xl.CommandFailed as again:
                raise _create_failed(again) from again
        domid = int(await xl.run("xl", "domid", name))
        console = await self._open_console(domid, label)
        domain = OwnDomain(label, name, domid, config, mac, console)
        self._own[label] = domain
        return domain

    async def _open_console(self, domid: int, label: str) -> Console:
        """xenconsoled writes the terminal's name into xenstore when it has made one."""
        key = f"/local/domain/{domid}/console/tty"
        watch = await xl.start("xenstore-watch", key)
        try:
            async with asyncio.timeout(xl.COMMAND_SECONDS_MAX):
                path = await _value(watch, key)
        except TimeoutError:
            raise TestbedError(
                f"Domain {domid} got no console.",
                next_step="Does xenconsoled run on this host, and is /dev/pts mounted?",
            ) from None
        finally:
            await xl.end(watch)
        return Console(open_terminal(path), lambda: self._stir(label))

    def _stir(self, label: str | None = None) -> None:
        for domain in self.own:
            if label in (None, domain.label):
                domain.stirred.set()

    async def _destroy_if_there(self, name: str) -> None:
        if not any(domain.name == name for domain in await xl.list_domains()):
            return
        try:
            await xl.run("xl", "destroy", name)
        except xl.CommandFailed:
            if any(domain.name == name for domain in await xl.list_domains()):
                raise

    async def _wait_until_gone(self, names: set[str]) -> None:
        """Its memory may still be mapped by a process: then it stays as one that is dying."""
        if not names or not await _still_there(names):
            return
        watch = await xl.start("xenstore-watch", "@releaseDomain")
        try:
            async with asyncio.timeout(GONE_SECONDS_MAX):
                await _until_gone(watch, names)
        except TimeoutError:
            raise TestbedError(
                f"{', '.join(sorted(names))} would not go: a process still maps memory of it.",
                next_step="End the processes that use /dev/xen/gntdev on this host.",
            ) from None
        finally:
            await xl.end(watch)

    def _forget(self, label: str) -> None:
        domain = self._own.pop(label, None)
        if domain is not None:
            domain.console.close()
            self._last_words[domain.title] = domain.console.text
            for oldest in list(self._last_words)[:-LAST_WORDS_KEPT]:
                del self._last_words[oldest]

    async def _close_if_empty(self) -> None:
        if self._own:
            return
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        await self.network.close()

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch_deaths())

    async def _watch_deaths(self) -> None:
        """Xenstore tells when any domain ends, shuts down or crashes."""
        watch = await xl.start("xenstore-watch", "@releaseDomain")
        try:
            assert watch.stdout is not None
            while await watch.stdout.readline():
                try:
                    await self.refresh()
                except TestbedError as error:
                    # The next death is looked at again.
                    self._on_note(f"the domains could not be looked at: {error.message}")
            self._on_note("xenstore-watch ended: deaths of domains are not told any more")
        finally:
            await xl.end(watch)


def _create_failed(error: xl.CommandFailed) -> TestbedError:
    next_step = "The lines below are xl's; `xl -vvv create` on that host says more."
    if "memory" in error.output:
        next_step = "Ask for less memory in the experiment, or lower dom0's (xl mem-set 0 ...)."
    return TestbedError("xl could not make a domain.", next_step=next_step, console=error.output)


async def _value(watch: asyncio.subprocess.Process, key: str) -> str:
    """The value of a key, once it has one; `watch` speaks at its start and at every change."""
    assert watch.stdout is not None
    while await watch.stdout.readline():
        with suppress(xl.CommandFailed):
            if value := (await xl.run("xenstore-read", key)).strip():
                return value
    raise TestbedError(f"xenstore-watch ended before {key} was there", next_step="Run again.")


async def _still_there(names: set[str]) -> bool:
    return any(domain.name in names for domain in await xl.list_domains())


async def _until_gone(watch: asyncio.subprocess.Process, names: set[str]) -> None:
    assert watch.stdout is not None
    while await _still_there(names):
        await watch.stdout.readline()
