"""The steps of a preparation, one after the other or each by hand.

What the steps leave for one another lies in the cache, in two folders. One is named by the settings: the listing of the
corpus and what was found in its recordings. The other one is named by the settings and all that was found, so that a
corpus which changes in between is another one: the plan, and prepared data as they grow.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.audio.codecs.configuration import codec_settings, codec_use
from pipeline.audio.codecs.registry import codec_class
from pipeline.audio.corpora.corpus import Corpus
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.splitting import SPLITS
from pipeline.configuration.command_line import preparing_command
from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.termination import ended_as_interrupted
from pipeline.preparation.configuration import ENCODE, ENCODE_LONG, FINISH, INSPECT, PLAN, DataConfig, read_data
from pipeline.preparation.encoding import Encoding, EncodingLong, Fitting, Material
from pipeline.preparation.engines.engine import Engine
from pipeline.preparation.finishing import finish_prepared, put_in_place
from pipeline.preparation.inspection import Inspecting
from pipeline.preparation.listing import count_listed, iterate_listing, write_listing
from pipeline.preparation.plan import Plan
from pipeline.preparation.plan_making import make_plan
from pipeline.preparation.reference import Measuring
from pipeline.preparation.sharded import ShardedWork
from pipeline.preparation.taken_codec import copy_codec
from pipeline.preparation.watching import warn_of_unwatched
from pipeline.provenance.digests import digest_of
from pipeline.provenance.exports import CODEC
from pipeline.provenance.prepared_data import prepared_settings, settings_name

log = logging.getLogger(__name__)

LISTING, PLAN_FILE = "recordings.sqlite", "plan.sqlite"
# Shards that a message names.
N_NAMED = 5


@dataclass(frozen=True)
class Preparation:
    """One preparation of one corpus; its steps in their order.

    Attributes:
        values: the configuration, of which `data` and `codec` count.
        prepared: the folder to prepare.
        cache: where the steps leave what they have done.
        engine: what their shards are spread by.
        codec: the folder of the codec that is taken; None where one is fitted.
    """

    values: Mapping[str, Any]
    prepared: Path
    cache: Path
    engine: Engine
    codec: Path | None = None

    def do(self, step: str) -> dict[str, Any] | None:
        """Do a step, or all of them; returns the data card when there is nothing left to do."""
        # Within, since Ray has a way of its own to end: it aborts.
        with self.engine.started(), ended_as_interrupted():
            return self._do(step)

    def _do(self, step: str) -> dict[str, Any] | None:
        match step:
            case "inspect":
                self.inspect()
                self._say_next("when all parts are inspected", PLAN)
            case "plan":
                self.plan()
                self._say_next("in as many parts as you like, with preparation.shard=k/n", self._after_plan)
            case "encode_long":
                self.encode_long()
                self._say_next("when all parts of this step are done", ENCODE)
            case "encode":
                self.encode()
                self._say_next("when all parts are encoded", FINISH)
            case "finish":
                return self.finish()
            case _:
                return self.do_all()
        return None

    def do_all(self) -> dict[str, Any]:
        """All steps; returns the data card."""
        self.inspect()
        self.plan()
        if self.encoding.pending():
            self.encode_long()
            self.encode()
        return self.finish()

    def inspect(self) -> None:
        """List the corpus, and read every recording once."""
        write_listing(self.corpus.recordings(), self.inspected / LISTING)
        remarks = self.corpus.remarks()
        for remark in remarks:
            log.warning(remark)
        write_json(self.inspected / "remarks.json", remarks)
        warn_of_unwatched(self.corpus, (recording.id for recording in iterate_listing(self.inspected / LISTING)))
        self.engine.run(self.inspecting)

    def plan(self) -> None:
        """Decide what becomes of each recording, and fit the codec or take it."""
        self._require_complete(self.inspecting)
        draft = self.inspected / PLAN_FILE
        make_plan(self.inspecting.findings(), self.data, draft, self.prepared)
        with Plan.open(draft) as plan:
            digest = plan.fact("digest")
        # What an interrupted run has encoded is found again by what it was encoded from: names and speakers decide on
        # the split and the order, so a corpus renamed in between is another one.
        taken = [] if self.codec is None else [digest_of(self.codec)]
        folder = self.cache / f"prepared-{fingerprint(self.settings, digest, *taken)[:16]}"
        folder.mkdir(exist_ok=True)
        os.replace(draft, folder / PLAN_FILE)
        write_json(self._pointer, {"folder": folder.name})
        if self.codec is None:
            self.engine.run(Fitting(self.material, self.values["codec"], self.data.seed))
        else:
            copy_codec(self.codec, folder / CODEC)

    def encode_long(self) -> None:
        """Encode the recordings that are cut into utterances, each in one go."""
        self.engine.run(self.encoding_long)

    def encode(self) -> None:
        """Encode the utterances."""
        if self.encoding.pending():
            self._require_complete(self.encoding_long)
            self.engine.run(self.encoding)

    def finish(self) -> dict[str, Any]:
        """Measure the references, describe everything, and put it into its place; returns the data card."""
        self._require_complete(self.encoding)
        self.engine.run(Measuring(self.material, self.data.processing.reference_utterances, self.data.seed))
        remarks = read_json(self.inspected / "remarks.json")
        card = finish_prepared(self.material, self.encoding, self.data.kind, self.values["codec"], remarks)
        put_in_place(self.material, self.settings, self.prepared)
        shutil.rmtree(self.inspected, ignore_errors=True)
        return card

    @cached_property
    def data(self) -> DataConfig:
        """The `data` group."""
        return read_data(self.values["data"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that decide on the bytes of prepared data."""
        return prepared_settings(self.values)

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus."""
        return build_corpus(self.data.kind, self.data.options, self.cache, self.data.seed)

    @property
    def inspected(self) -> Path:
        """The folder of what was found in the recordings."""
        return self.cache / f"inspected-{settings_name(self.settings)}"

    @cached_property
    def inspecting(self) -> Inspecting:
        """The first pass, over the recordings that are listed.

        Raises:
            FileNotFoundError: nothing was listed yet; the message names the command that does.
        """
        listing = self.inspected / LISTING
        if not listing.exists():
            raise FileNotFoundError(f"Nothing is inspected with these settings. Do it: {self._command(INSPECT)}")
        return Inspecting(
            self.corpus,
            listing,
            self.inspected,
            count_listed(listing),
            self.data.utterances.min_recording_seconds,
            self.data.screening,
        )

    @cached_property
    def material(self) -> Material:
        """What utterances are made from, as planned.

        Raises:
            FileNotFoundError: nothing was planned yet; the message names the command that does.
        """
        if not self._pointer.exists():
            raise FileNotFoundError(f"No plan of these settings is there. Make one: {self._command(PLAN)}")
        folder = self.cache / read_json(self._pointer)["folder"]
        codec = self.values["codec"]
        sample_rate = codec_class(codec["kind"]).sample_rate_of(codec_settings(codec))
        gap_seconds, use = self.data.utterances.gap_seconds, codec_use(codec)
        return Material(self.corpus, folder / PLAN_FILE, folder, sample_rate, gap_seconds, use)

    @cached_property
    def encoding_long(self) -> EncodingLong:
        """The second pass over recordings that are cut into utterances."""
        with Plan.open(self.material.plan) as plan:
            return EncodingLong(self.material, plan.count_long())

    @cached_property
    def encoding(self) -> Encoding:
        """The second pass."""
        with Plan.open(self.material.plan) as plan:
            counts = {split: plan.count(split) for split in SPLITS}
        return Encoding(self.material, counts, self.data.processing.shard_utterances)

    @property
    def _pointer(self) -> Path:
        """Names the folder that holds the plan."""
        return self.inspected / "planned.json"

    def _require_complete(self, work: ShardedWork) -> None:
        """Raise a ValueError that names shards which are missing, and the command that writes them."""
        if missing := work.missing():
            listed = "; ".join(work.name(number) for number in missing[:N_NAMED])
            more = f" and {len(missing) - N_NAMED} more" if len(missing) > N_NAMED else ""
            raise ValueError(
                f"{len(missing)} of {work.n_shards} shards of {work.step} are missing: {listed}{more}. "
                f"Do what is missing: {self._command(work.step)}"
            )

    @property
    def _after_plan(self) -> str:
        return ENCODE_LONG if self.encoding_long.n_shards else ENCODE

    def _say_next(self, when: str, step: str) -> None:
        log.info("Next, %s: %s", when, self._command(step))

    def _command(self, step: str) -> str:
        return f"{preparing_command()} preparation.step={step}"
