"""The sweeper that Hydra finds here, as it takes plugins from this package alone. All that it does lies elsewhere."""

from collections.abc import Sequence

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class MelismaSweeper(Sweeper):
    """Runs the jobs of a sweep that have not ended well yet."""

    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the launcher that the configuration names."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Run what is missing of what the command line asks for; at the end raise the error of a job that failed."""
        from pipeline.entry.sweep import run_sweep

        assert self.config is not None
        assert self.hydra_context is not None
        results = run_sweep(self.hydra_context, self.config, self.launcher, arguments)
        for result in results:
            # Hydra's way of letting the error of a job out.
            _ = result.return_value
        return results
