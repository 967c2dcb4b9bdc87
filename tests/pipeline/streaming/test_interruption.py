import os
import signal

import pytest

from pipeline.streaming.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noticed_and_the_second_has_its_usual_effect(number: int) -> None:
    class UsualEffect(Exception):  # noqa: N818
        pass

    def usual(*_: object) -> None:
        raise UsualEffect

    before = signal.signal(number, usual)
    try:
        with Interruption() as interruption:
            assert not interruption.requested
            os.kill(os.getpid(), number)
            assert interruption.requested
            with pytest.raises(UsualEffect):
                os.kill(os.getpid(), number)
        with Interruption():
            pass
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
