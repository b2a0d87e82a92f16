"""Many short runs on one host: each a run directory of its own, in a folder of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed import __version__
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.guests.runner import run_experiment
from vchan_testbed.progress import Progress
from vchan_testbed.rundir import RunDirectory, create_run


@dataclass(frozen=True)
class Planned:
    """A run that is to be made."""

    name: str
    """Of its run directory."""
    experiment: Experiment
    seed: int

    @property
    def run_id(self) -> str:
        """The same each time that it is made: it names the channel, and both traces have it."""
        return hashlib.sha256(f"{self.name} {self.seed}".encode()).hexdigest()[:32]


def make_run(host: Host, planned: Planned, folder: Path, progress: Progress) -> RunDirectory:
    """Make a run on an open host; its directory is in `folder`.

    Raises TestbedError when it cannot be made; what was collected of it is kept, with the reason.
    """
    run = create_run(
        folder / planned.name,
        planned.name,
        run_id=planned.run_id,
        seed=planned.seed,
        experiment=planned.experiment.to_dict(),
        host=host.facts(),
        versions={"vchan_testbed": __version__},
        messages=[],
    )
    try:
        run_experiment(host, planned.experiment, run, planned.seed, progress)
    except TestbedError as error:
        run.update(error=error.message)
        raise
    run.update(state="complete")
    return run
