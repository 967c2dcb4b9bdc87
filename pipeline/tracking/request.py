"""What a stage asks for when it begins a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunRequest:
    """The run that a stage asks for.

    Attributes:
        name: the run's name, to which a number or its parent's is added to tell it from others; tracking.run_name
            takes its place, except for children.
        stage: the stage, as in `train`.
        parent_run_id: the run this one belongs to. One that the store does not know is left out, with a warning: DVC's
            run cache may bring back an id from another store.
        tags: further tags.
        resume_run_id: an interrupted run to go on with. Where the store does not know it a new run begins, with a
            warning.
        parent_tags: what tells the training this run belongs to from others, by which it is found where no id leads to
            it: DVC brings back a checkpoint without a word of the run that made it.
    """

    name: str
    stage: str
    parent_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    resume_run_id: str | None = None
    parent_tags: Mapping[str, str] = field(default_factory=dict)
