"""One run: an attempt, and another one when the emulator has lost a guest.

Whatever fails, what was collected stays in the run directory.
"""

from __future__ import annotations

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.accounts import settle
from vchan_testbed.guests.attempt import Attempt, GuestLost
from vchan_testbed.guests.consoles import console_tail, keep_consoles
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.fault_steps import ON_DOMAINS
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.progress import Progress
from vchan_testbed.rundir import RunDirectory

PAIRS_ANEW_MAX = 3
ON_XEN = "Run it on Xen: --host qemu, local or ssh://USER@NAME."


def run_experiment(
    host: Host,
    experiment: Experiment,
    run: RunDirectory,
    seed: int,
    progress: Progress,
    *,
    xen_dump: bool = False,
) -> None:
    """Run `experiment` on an open host; all that comes of it goes into `run`.

    A pair that the emulator loses is made anew, at most three times. Raises TestbedError, after
    what was collected is written; InputError for a fault that this host cannot bring about. With
    `xen_dump` a run that stands still has Xen dump its event channels to its console.
    """
    _refuse_without_domains(host, experiment)
    try:
        _attempts(host, experiment, run, seed, progress, xen_dump=xen_dump)
    finally:
        settle(host, run, progress)


def _refuse_without_domains(host: Host, experiment: Experiment) -> None:
    if experiment.needs == "xen" and host.kind == "loopback":
        raise InputError(
            f"The experiment {experiment.name} needs Xen, and the loopback host has none.",
            next_step=ON_XEN,
        )
    asked = [fault.do for fault in experiment.faults if fault.do in ON_DOMAINS]
    if asked and host.kind == "loopback":
        raise InputError(
            f"The experiment {experiment.name} has the fault {asked[0]}, which is done to a "
            "domain, and the loopback host has none.",
            next_step=ON_XEN,
        )


def _attempts(
    host: Host,
    experiment: Experiment,
    run: RunDirectory,
    seed: int,
    progress: Progress,
    *,
    xen_dump: bool,
) -> None:
    for pairs_anew in range(1 + PAIRS_ANEW_MAX):
        try:
            Attempt(host, experiment, run, seed, progress, xen_dump=xen_dump).perform()
            return
        except (GuestLost, TestbedError) as error:
            lost = _lost_guests(host, error)
            if not lost and isinstance(error, GuestLost):
                return
            if not lost:
                raise
            if pairs_anew == PAIRS_ANEW_MAX:
                raise TestbedError(
                    f"The emulator lost a guest {pairs_anew + 1} times. {lost[0]}",
                    next_step="Run again with PV domains (--domain-type pv), or under KVM.",
                    console=console_tail(host),
                ) from error
            told = [*lost, f"The pair is made anew ({pairs_anew + 1} of {PAIRS_ANEW_MAX})."]
            run.update(messages=[*run.facts()["messages"], *told])
            progress.note(" ".join(told))
            _forget_traces(run)
        finally:
            keep_consoles(host, run)


def _lost_guests(host: Host, error: GuestLost | TestbedError) -> list[str]:
    """Raises TestbedError when domains went away because their host did."""
    try:
        return host.lost_guests()
    except TestbedError:
        if isinstance(error, GuestLost):
            raise
        # The failure that led here says more than this one.
        return []


def _forget_traces(run: RunDirectory) -> None:
    for endpoint in ENDPOINTS:
        run.trace(endpoint).unlink(missing_ok=True)
