"""Which exchanges between ranks a process has begun, by torch's flight recorder, and who keeps the others waiting."""

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from torch._C import _distributed_c10d

# A recorder for each kind of memory; a build without NCCL has one.
DUMPS = ("_dump_fr_trace_json", "_dump_nccl_trace_json")
# Entries that a recorder keeps: more than a step begins.
LENGTH = "2000"


class Exchange(NamedTuple):
    """A collective of one group of ranks.

    Attributes:
        number: of those that the group has begun, from 1.
        name: the backend's, and what it does.
        sizes: of what goes in.
    """

    number: int
    name: str
    sizes: str

    def __str__(self) -> str:
        return f"{self.name} {self.number} of {self.sizes}"


# What a rank is in, by the name of the group.
Place = Mapping[str, Exchange]


class Waiting(NamedTuple):
    """Ranks that wait in an exchange for one that is elsewhere."""

    rank: int
    sentence: str


def begin_recording() -> None:
    """Have torch keep what is begun; before processes are connected. It does so with NCCL anyway."""
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", LENGTH)


def place_of_this_process() -> dict[str, Exchange]:
    """The exchange of every group that this rank is in: begun and not done, as far as the backend tells; else the last.

    Not to be called in the middle of a CUDA graph's recording, which a look at NCCL's events may break.
    """
    place: dict[str, Exchange] = {}
    pending = set()
    for name in DUMPS:
        if not hasattr(_distributed_c10d, name):
            continue
        for entry in json.loads(getattr(_distributed_c10d, name)()).get("entries", []):
            if entry.get("is_p2p"):
                continue
            own, meaning = entry["process_group"]
            # NCCL's exchanges are begun ahead, and known when done; Gloo's are begun one by one.
            group = f"{meaning or own} ({entry['profiling_name'].partition(':')[0]} group {own})"
            if group not in pending:
                exchange = Exchange(entry["collective_seq_id"], entry["profiling_name"], str(entry["input_sizes"]))
                place[group] = exchange
            if entry["profiling_name"].startswith("nccl") and entry["state"] != "completed":
                pending.add(group)
    return place


def written(place: Place) -> str:
    """As another rank can read it."""
    return json.dumps(place)


def read(text: str) -> dict[str, Exchange]:
    """What `written` wrote."""
    return {group: Exchange(*values) for group, values in json.loads(text).items()}


def who_is_waited_for(places: Mapping[int, Place]) -> Waiting | None:
    """The rank that others wait for, if possible one that waits for nobody; None where all are in the same exchanges.

    Where ranks wait for each other, one has left out an exchange, and nothing tells which: the sentence has both.
    """
    found, waiting = list[Waiting](), set[int]()
    for group in sorted({group for place in places.values() for group in place}):
        members = {rank: place[group] for rank, place in places.items() if group in place}
        behind = min(members, key=lambda rank: members[rank].number)
        own = members[behind]
        ahead = [rank for rank, exchange in members.items() if exchange.number > own.number]
        others = ahead or [rank for rank, exchange in members.items() if exchange[1:] != own[1:]]
        waiting.update(ahead)
        if others:
            has_come = "has come to" if ahead else "is in"
            said = f"{_ranks(others)} in {members[others[0]]} of {group}, where rank {behind} {has_come} {own}"
            found.append(Waiting(behind, said))
    first = [one for one in found if one.rank not in waiting]
    if first or not found:
        return first[0] if first else None
    return Waiting(found[0].rank, "; ".join(one.sentence for one in found))


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:4])) + (", …" if len(ranks) > 4 else "")
    return f"rank {shown} waits" if len(ranks) == 1 else f"ranks {shown} wait"
