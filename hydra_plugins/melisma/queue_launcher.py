"""The launcher that Hydra finds here, as it takes plugins from this package alone. All that it does lies elsewhere."""

from collections.abc import Sequence
from importlib.util import find_spec

from hydra.core.utils import JobReturn

# The extra `slurm` is optional.
if find_spec("hydra_plugins.hydra_submitit_launcher") is not None:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    class QueueLauncher(SlurmLauncher):
        """Submits the jobs of a sweep to SLURM, but for those that are in its queue already, and waits for all."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submit and wait."""
            from pipeline.entry.slurm_sweep import launch_in_queue

            return launch_in_queue(self, job_overrides, initial_job_idx)
