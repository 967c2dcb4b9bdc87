import logging

import pytest

from pipeline.plumbing.redaction import RedactingFormatter, redacted, redacted_values, uri_user

SECRET = "s3cretWord"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://bob:{SECRET}@host:5000/x", "http://host:5000/x"),
        (f"no http://bob:{SECRET}@host:5000.", "no http://host:5000."),
        (f"https://{SECRET}@github.com/a/b.git", "https://github.com/a/b.git"),
        (f"http://bob:{SECRET}@@x@host/", "http://host/"),
        (f"http://bob:{SECRET}/x?y#z@host/", "http://host/"),
        (f"postgresql+psycopg2://bob:{SECRET}/x@host:5432/runs", "postgresql+psycopg2://host:5432/runs"),
        (f"mysql://host/runs?user=bob&password={SECRET}", "mysql://host/runs?user=bob&password=***"),
        (f"mssql+pyodbc:///?odbc_connect=PWD%3D{SECRET}", "mssql+pyodbc:///?odbc_connect=***"),
        (f"https://host/x?X-Amz-Signature={SECRET}&a=b", "https://host/x?X-Amz-Signature=***&a=b"),
        (f"{{'Authorization': 'Bearer {SECRET}'}}", "{'Authorization': 'Bearer ***'}"),
        (f'{{"uri": "http://bob:{SECRET}@host"}}', '{"uri": "http://host"}'),
        ("sqlite:////data/a@b:c@d/runs.db", "sqlite:////data/a@b:c@d/runs.db"),
        ("http://host:5000/users/@bob?tokens=4", "http://host:5000/users/@bob?tokens=4"),
        ("git@github.com:a/b.git and 3 tokens", "git@github.com:a/b.git and 3 tokens"),
    ],
)
def test_what_is_shown_of_a_text(text, shown):
    assert redacted(text) == shown


def test_values_of_secret_variables_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:an%20other@host")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsely")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    assert redacted(f"{SECRET}, an other, an%20other, falsely, abc") == "***, ***, ***, falsely, abc"


def test_nested_values_keep_their_form():
    values = {"uri": f"http://bob:{SECRET}@host", "list": [1, f"http://{SECRET}@host"], "api_key": SECRET, "tokens": 4}
    assert redacted_values(values) == {"uri": "http://host", "list": [1, "http://host"], "api_key": "***", "tokens": 4}


def test_the_user_of_a_uri():
    assert uri_user("http://bob:x@host/y") == "bob:x"
    assert uri_user("http://host/y") == ""


def test_a_log_line_is_redacted_with_its_traceback():
    formatter = RedactingFormatter("%(levelname)s %(message)s")
    try:
        raise ConnectionError(f"http://bob:{SECRET}@host is away")
    except ConnectionError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "at %s", (f"http://bob:{SECRET}@host",), (type(error), error, None)
        )
    line = formatter.format(record)
    assert line.startswith("ERROR at http://host")
    assert SECRET not in line


def test_the_working_directory_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/home/ann/melisma")
    assert redacted("Open file:///home/ann/melisma/report in a browser.").endswith("melisma/report in a browser.")
    monkeypatch.setenv("DATABASE_PWD", "correct horse")
    assert "horse" not in redacted("password=correct horse")
