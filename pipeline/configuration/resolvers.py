"""What the configuration works out of its own values, also where DVC composes it: `${mandatory:…}` and its like.

Light: Hydra imports this with its plugins.
"""

import os
from collections.abc import Mapping

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from pipeline.plumbing.locations import normalised, scheme_of

# What DVC watches where there is nothing else to watch: code that it watches anyway.
CODE_OF_CODECS, CODE_OF_FEED = "pipeline/audio/codecs", "pipeline/training/feed.py"


def mandatory(name: str) -> None:
    """A value that has to be given although a layer below has a default: OmegaConf merges ??? as "no opinion".

    Raises:
        MissingMandatoryValue: always.
    """
    raise MissingMandatoryValue(f"Missing mandatory value: {name}")


def watched_codec(taken_from: str | None) -> str:
    """The folder of the codec that is taken from elsewhere; one behind a URL is not watched."""
    return f"{taken_from}/codec" if taken_from and not scheme_of(taken_from) else CODE_OF_CODECS


def watched_mixture(mixture: Mapping[str, float] | None, prepared: str) -> str:
    """The folder that holds the prepared data of a mixture but for those in `prepared`, which are watched anyway.

    DVC takes one name here. Folders that have no folder to themselves, and those behind a URL, are not watched.
    """
    usual = normalised(prepared)
    here = [folder for folder in mixture or () if not scheme_of(folder) and normalised(folder) != usual]
    if not here:
        return CODE_OF_FEED
    if len(here) == 1:
        return here[0]
    common = os.path.commonpath(map(normalised, here))
    crowded = os.path.commonpath((common, usual)) == common or os.path.commonpath((common, os.getcwd())) == common
    return CODE_OF_FEED if crowded else os.path.relpath(common)


for resolver in (mandatory, watched_codec, watched_mixture):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
