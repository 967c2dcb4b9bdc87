"""Prepared data that no corpus was needed for."""

import hashlib
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.plumbing.files import write_json
from pipeline.provenance.prepared_data import prepared_settings, write_prepared_identity
from pipeline.tokens.audio_hashes import write_audio_hashes
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary


def write_prepared_tokens(folder: Path, *overrides: str, seed: int = 1) -> None:
    """Write a dozen random documents, which say that they are what a configuration asks for."""
    vocabulary, rng = Vocabulary(2, 8), np.random.default_rng(seed)
    for split, n_documents in (("train", 12), ("validation", 2), ("test", 2)):
        documents = [vocabulary.document(rng.integers(0, 8, size=(20, 2))) for _ in range(n_documents)]
        write_shard(shard_path(folder / split, 0), documents, vocabulary)
        finish_split(folder / split, 1)
        names = [f"{seed} {split} {document}" for document in range(n_documents)]
        rows = [(document, hashlib.sha256(name.encode()).hexdigest()) for document, name in enumerate(names)]
        write_audio_hashes(folder / split, n_documents, rows)
    write_json(folder / "codec" / "codec.json", {"seed": seed})
    write_json(folder / "data_card.json", {"splits": {}})
    (folder / "data_card.md").write_text("tokens\n")
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        values: Any = OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)
    write_prepared_identity(folder, prepared_settings(values))
