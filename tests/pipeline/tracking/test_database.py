import logging
from pathlib import Path

from pipeline.tracking.database import prepare_database


def test_a_new_store_is_made_without_a_word(tmp_path: Path, capfd) -> None:
    # As in a process that has opened no store yet.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.NOTSET)
    prepare_database(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").stat().st_size > 0
    assert capfd.readouterr().err == ""
