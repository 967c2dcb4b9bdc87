import pytest

from pipeline.tracking.journal import Journal, Record, owner


def record(i: int) -> Record:
    return Record("r", "metrics", 1000 + i, {"train/loss": i / 2}, i)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "outputs" / "journal.jsonl", "sqlite:///x.db")
    yield journal
    journal.close()


def test_records_come_out_in_order(journal):
    for i in range(5):
        journal.append(record(i))
    assert journal.front(3) == [record(0), record(1), record(2)]
    journal.delivered(2)
    journal.append(record(5))
    assert journal.front() == [record(i) for i in (2, 3, 4, 5)]


def test_what_is_postponed_comes_last_and_stays_in_the_file(journal):
    for i in range(4):
        journal.append(record(i))
    journal.postpone(2)
    assert journal.pending == 4
    assert journal.front() == [record(i) for i in (2, 3, 0, 1)]
    journal.append(record(4))
    journal.delivered(3)
    assert journal.front() == [record(1), record(4)]
    # Nothing is lost where the process dies: what was delivered may be told again.
    assert Journal(journal.path, "sqlite:///x.db").front()[-2:] == [record(1), record(4)]
    journal.delivered(2)
    journal.close()
    assert not journal.path.exists()


def test_the_file_shrinks_when_everything_is_delivered_and_goes_at_the_end(journal):
    empty = journal.path.stat().st_size
    for i in range(100):
        journal.append(record(i))
    journal.delivered(100)
    assert journal.path.stat().st_size == empty
    journal.append(record(100))
    assert journal.front() == [record(100)]
    journal.delivered(1)
    journal.close()
    assert not journal.path.exists()


def test_what_was_delivered_is_no_longer_there_when_it_is_closed(journal):
    for i in range(4):
        journal.append(record(i))
    journal.delivered(1)
    journal.postpone(1)
    journal.close()
    assert owner(journal.path)[0] == "sqlite:///x.db"
    assert Journal(journal.path, "sqlite:///x.db").front() == [record(i) for i in (2, 3, 1)]


def test_a_full_disk_leaves_the_file_whole(journal, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    for i in range(2):
        journal.append(record(i))
    journal.delivered(1)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.tracking.journal.atomic_write", full)
        journal.close()
    assert Journal(journal.path, "sqlite:///x.db").front() == [record(0), record(1)]


def test_what_a_crash_leaves_is_taken_up(journal):
    journal.append(record(0))
    journal.append(record(1))
    with journal.path.open("ab") as file:
        file.write(b'{"run_id": "r", "kind": "met')
    after = Journal(journal.path, "sqlite:///x.db")
    after.append(record(2))
    assert after.front() == [record(0), record(1), record(2)]


def test_a_damaged_line_is_left_out(journal, caplog):
    journal.append(record(0))
    text = journal.path.read_text()
    journal.path.write_text(text + "garbage\n")
    after = Journal(journal.path, "sqlite:///x.db")
    after.append(record(1))
    assert after.front() == [record(0)]
    after.delivered(1)
    assert after.front() == [record(1)]
    assert "no record" in caplog.text


def test_values_that_json_lacks_survive(journal):
    journal.append(Record("r", "metrics", 1, {"loss": float("nan")}))
    assert journal.front()[0].values["loss"] != journal.front()[0].values["loss"]


def test_the_owner_is_named(journal, tmp_path):
    store, process = owner(journal.path)
    assert store == "sqlite:///x.db"
    assert process.is_current
    (tmp_path / "other").write_text("hello\n")
    assert owner(tmp_path / "other") is None
    assert owner(tmp_path / "absent") is None
