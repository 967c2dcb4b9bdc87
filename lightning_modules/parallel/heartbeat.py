"""Ranks that hang: noticed, named, and after a while not waited for any longer.

A process that was stopped, or waits for a disk or a device for ever, ends no connection: the others would wait for it
in their next exchange, and say nothing. So a thread of every rank tells the ranks' store, again and again, that it
lives and how far its training has come. The first rank reads what all say; the others read what the first one says.

Where nobody comes any further, all say which exchange they are in: one that waits in another than the rest, or not at
all, has left out an exchange or hangs before it.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import Store

from lightning_modules.parallel.collectives import Place, place_of_this_process, read, who_is_waited_for, written

log = logging.getLogger(__name__)

VERDICT = "verdict"
# Times that a rank is looked at before it counts as late.
LOOKS = 4
LONGEST_INTERVAL = 5.0


class Beat(NamedTuple):
    """What a rank says of itself.

    Attributes:
        number: how often it has said so.
        progress: batches begun.
        step: optimizer steps done.
        host: its machine.
        pid: its process.
    """

    number: int
    progress: int
    step: int
    host: str
    pid: int

    @classmethod
    def parse(cls, text: str) -> "Beat":
        """Read what `str(beat)` wrote."""
        number, progress, step, pid, host = text.split(" ", 4)
        return cls(int(number), int(progress), int(step), host, int(pid))

    def __str__(self) -> str:
        return f"{self.number} {self.progress} {self.step} {self.pid} {self.host}"


class Late(NamedTuple):
    """A rank that the others wait for: for how many seconds, what is known of it, and where they wait."""

    rank: int
    beat: Beat
    seconds: float
    problem: str
    exchange: str = ""

    def __str__(self) -> str:
        where = f" ({self.exchange})" if self.exchange else ""
        return (
            f"Rank {self.rank} (process {self.beat.pid} on {self.beat.host}, step {self.beat.step}) {self.problem} for "
            f"{self.seconds:.0f} s{where}"
        )


class Watch:
    """Judges from beats alone which ranks are late."""

    def __init__(self) -> None:
        self._beats: dict[int, Beat] = {}
        self._heard: dict[int, float] = {}
        self._moved: dict[int, float] = {}
        self._places: dict[int, Place] = {}

    def still(self, now: float) -> float:
        """For how many seconds no rank has moved."""
        return now - max(self._moved.values(), default=now)

    def is_at(self, rank: int, progress: int) -> bool:
        """Whether a rank is in this batch, as far as it has been heard of."""
        return rank in self._beats and self._beats[rank].progress == progress

    def host_of(self, rank: int) -> str:
        """The machine that a rank has said it is on."""
        return self._beats[rank].host

    def observe_places(self, places: Mapping[int, Place]) -> None:
        """Take in which exchanges ranks are in that have not moved for a while."""
        self._places = dict(places)

    def observe(self, beats: Mapping[int, Beat], now: float) -> None:
        """Take in the beats that could be read at the time `now`, in seconds."""
        for rank, beat in beats.items():
            before = self._beats.get(rank)
            if before is None or beat.number != before.number:
                self._heard[rank] = now
            if before is None or beat.progress != before.progress:
                self._moved[rank] = now
            self._beats[rank] = beat

    def late(self, now: float, seconds: float) -> list[Late]:
        """Ranks that were silent, or behind others without moving, for so many seconds; the latest first.

        Where none is, but all stand still, the one that others wait for in an exchange.
        """
        furthest = max((beat.progress for beat in self._beats.values()), default=0)
        waiting, found = who_is_waited_for(self._places), []
        for rank, beat in self._beats.items():
            silent, still = now - self._heard[rank], now - self._moved[rank]
            if silent >= seconds:
                found.append(Late(rank, beat, silent, "has not been heard of"))
            elif beat.progress < furthest and still >= seconds:
                found.append(Late(rank, beat, still, "has not come as far as others"))
        if not found and waiting is not None and self.still(now) >= seconds:
            found.append(Late(waiting.rank, self._beats[waiting.rank], self.still(now), "is waited for"))
        if waiting is not None:
            found = [late._replace(exchange=waiting.sentence) if late.rank == waiting.rank else late for late in found]
        return sorted(found, key=lambda late: late.seconds, reverse=True)


class Heartbeat:
    """Tells the other ranks that this one lives, and looks after them, from `start` to `stop`.

    A rank that is late is named once, by the first rank (the first rank itself by the second). One that is lost ends
    the training: the process that hangs is killed where that can be done from its own machine, and all others exit with
    code 1, which launchers notice. Checkpoints are as they were: the same command goes on from the last.

    Args:
        store: the ranks' own; connected anew, so that nothing else waits for what is asked here.
        rank: this process's.
        world_size: ranks.
        late_seconds: after how many seconds a rank is named.
        lost_seconds: after how many seconds the training ends.
    """

    def __init__(self, store: Store, rank: int, world_size: int, late_seconds: float, lost_seconds: float) -> None:
        self.rank = rank
        self.late_seconds = late_seconds
        self.lost_seconds = lost_seconds
        self._interval = min(late_seconds / LOOKS, LONGEST_INTERVAL)
        self._store = store.clone()  # type: ignore[attr-defined]
        self._store.set_timeout(timedelta(seconds=self._interval))
        self._watched = list(range(1, world_size)) if rank == 0 else [0]
        self._beat = Beat(0, 0, 0, socket.gethostname(), os.getpid())
        self._progress, self._step = 0, 0
        self._moved = (0, time.monotonic())
        self._watch = Watch()
        self._lock = threading.Lock()
        self._named: set[int] = set()
        self._stopped = threading.Event()
        self._verdict = ""
        # One asks the store, which does not answer where its process is stopped; the other judges by the clock alone.
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), name=name, daemon=True)
            for name, work in (("heartbeat", self._exchange), ("heartbeat watch", self._judge))
        ]

    def tell(self) -> None:
        """Say for the first time that this rank is there: before any other looks for it."""
        self._store.set(_key(self.rank), str(self._beat))

    def start(self) -> None:
        """Begin; all ranks have to have told."""
        self._watch.observe(self._read(), time.monotonic())
        for thread in self._threads:
            thread.start()

    def host_of(self, rank: int) -> str:
        """The machine of a rank that this one looks after."""
        with self._lock:
            return self._watch.host_of(rank)

    def advance(self, step: int) -> None:
        """Note that training has begun another batch, after so many optimizer steps."""
        self._progress, self._step = self._progress + 1, step

    def stop(self) -> None:
        """Leave in peace: a rank that has stopped is not late."""
        if not self._stopped.is_set():
            self._stopped.set()
            for thread in self._threads:
                thread.join(timeout=2 * self._interval)
            with contextlib.suppress(RuntimeError):
                self._store.set(_key(self.rank), "left")

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stopped.wait(self._interval):
            # A store that is gone says nothing: neither does the rank that kept it.
            with contextlib.suppress(RuntimeError):
                work()

    def _exchange(self) -> None:
        number, progress = self._beat.number + 1, self._progress
        self._beat = self._beat._replace(number=number, progress=progress, step=self._step)
        self._store.set(_key(self.rank), str(self._beat))
        if self._store.check([VERDICT]):
            self._verdict = self._store.get(VERDICT).decode()
        beats = self._read()
        with self._lock:
            self._watch.observe(beats, time.monotonic())
        self._exchange_places(progress)

    def _exchange_places(self, progress: int) -> None:
        """Where this rank has not moved for as long as makes one late: say what it is in, and hear it of the others."""
        if progress != self._moved[0]:
            self._moved = (progress, time.monotonic())
        if time.monotonic() - self._moved[1] < self.late_seconds / 2:
            places: dict[int, Place] = {}
        else:
            own = place_of_this_process()
            self._store.set(_place(self.rank), f"{progress} {written(own)}")
            places = {self.rank: own} | self._read_places()
        with self._lock:
            self._watch.observe_places(places)

    def _read_places(self) -> dict[int, Place]:
        """Those of ranks that have not moved since they said so."""
        told = [rank for rank in self._watched if self._store.check([_place(rank)])]
        answers = self._store.multi_get([_place(rank) for rank in told]) if told else []
        said = {rank: answer.decode().split(" ", 1) for rank, answer in zip(told, answers, strict=True)}
        return {rank: read(place) for rank, (progress, place) in said.items() if self._watch.is_at(rank, int(progress))}

    def _read(self) -> dict[int, Beat]:
        answers = self._store.multi_get([_key(rank) for rank in self._watched]) if self._watched else []
        said = {rank: answer.decode() for rank, answer in zip(self._watched, answers, strict=True)}
        # Those that have left are not looked at any more.
        self._watched = [rank for rank, text in said.items() if text != "left"]
        beats = {rank: Beat.parse(said[rank]) for rank in self._watched}
        return beats | ({0: self._beat} if self.rank == 0 else {})

    def _judge(self) -> None:
        if self._verdict:
            self._end(self._verdict)
        with self._lock:
            late = [
                found for found in self._watch.late(time.monotonic(), self.late_seconds) if found.rank in self._watched
            ]
        for found in late:
            if found.rank not in self._named and self.rank <= 1:
                log.warning(
                    "%s; the others wait. The training ends when that lasts %g s (strategy.rank_lost_seconds).",
                    found,
                    self.lost_seconds,
                )
        for rank in self._named - {found.rank for found in late}:
            log.warning("Rank %d goes on.", rank)
        self._named = {found.rank for found in late} if self.rank <= 1 else set()
        if late and late[0].seconds >= self.lost_seconds:
            self._give_up(late[0])

    def _give_up(self, lost: Late) -> None:
        message = f"{lost}: the training ends. The same command goes on from its last checkpoint."
        if self.rank == 0:
            self._store.set(VERDICT, message)
        if self.rank <= 1:
            log.error("%s", message)
            with contextlib.suppress(OSError):
                if lost.beat.host == self._beat.host:
                    os.kill(lost.beat.pid, signal.SIGKILL)
        # Time for the others to hear of it, and for an exchange that now fails to end this process in order.
        time.sleep(3 * self._interval)
        self._end(message)

    def _end(self, message: str) -> None:
        """End this process, whose main thread waits in an exchange that nothing wakes it from."""
        if self._stopped.is_set():
            return
        if self.rank > 1:
            log.error("%s", message)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(1)


def _key(rank: int) -> str:
    return f"beat/{rank}"


def _place(rank: int) -> str:
    return f"place/{rank}"
