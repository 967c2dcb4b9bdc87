import pickle
from traceback import extract_tb

import pytest

from lightning_modules.parallel.sent_errors import let_errors_be_sent


def test_where_an_error_was_raised_arrives_with_it() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        1 / 0  # noqa: B018 - the error
    lines = extract_tb(raised.tb)
    let_errors_be_sent()
    (arrived,) = pickle.loads(pickle.dumps(lines))
    assert (arrived.filename, arrived.lineno, arrived.name) == (__file__, lines[0].lineno, lines[0].name)
    assert arrived.line == lines[0].line
