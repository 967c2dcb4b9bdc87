"""List, or delete, the models that deleted runs have left behind: `mlflow gc` takes the runs alone.

python -m pipeline.tracking.leftovers [--delete] [--uri http://localhost:5000]

Deleted models go for good, with their files, by the `mlflow gc` that comes next.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow.entities import LoggedModel, ViewType
from mlflow.store.entities.paged_list import PagedList

from pipeline.tracking.config import TrackingConfig, store_uri
from pipeline.tracking.models import KEPT_TAG
from pipeline.tracking.reachability import check_reachable
from pipeline.tracking.store import Store, asking

Entity = TypeVar("Entity")


def leftover_models(store: Store) -> list[LoggedModel]:
    """The models whose run was deleted, or is gone for good; what the registry has a version of is no leftover."""
    client = store.client
    experiments = _pages(lambda token: client.search_experiments(ViewType.ALL, page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    versions = _pages(lambda token: client.search_model_versions(page_token=token))
    # MLflow keeps no model's id with its versions.
    registered = {client.get_model_version_download_uri(version.name, version.version) for version in versions}
    models = [
        model
        for model in _pages(lambda token: client.search_logged_models(ids, page_token=token))
        if model.artifact_location not in registered
    ]
    makers = {model.source_run_id for model in models if model.source_run_id}
    gone = {run_id for run_id in makers if store.run(run_id) is None}
    return [model for model in models if model.source_run_id in gone]


def _pages(search: Callable[[str | None], PagedList[Entity]]) -> Iterator[Entity]:
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.leftovers", description=__doc__.splitlines()[0])
    parser.add_argument("--delete", action="store_true", help="delete them; without, they are only listed")
    parser.add_argument("--uri", help="the tracking URI (default: MLFLOW_TRACKING_URI, or mlflow.db in this folder)")
    options = parser.parse_args(arguments)
    try:
        uri = store_uri(TrackingConfig(uri=options.uri), Path.cwd())
        with asking(uri):
            check_reachable(uri)
            store = Store(uri)
            leftovers = leftover_models(store)
            for model in leftovers:
                if options.delete:
                    store.client.delete_logged_model(model.model_id)
                kept = model.tags.get(KEPT_TAG, "unknown")
                print(f"{model.model_id}  {model.name}  (run {model.source_run_id}; files: {kept})")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if not leftovers:
        print(f"Deleted runs have left no models in {store.name}.")
    elif options.delete:
        print(f"{len(leftovers)} models deleted; mlflow gc removes them and their files.")
    else:
        print(f"{len(leftovers)} models are of deleted runs; --delete deletes them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
