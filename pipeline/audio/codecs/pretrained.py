"""Neural codecs with published weights, through `transformers`."""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.audio.codecs.chunked_stream import ChunkedStream
from pipeline.audio.codecs.codec import Waveforms, checked_audio, checked_codes, normalise_loudness
from pipeline.audio.codecs.configuration import PretrainedConfig
from pipeline.audio.codecs.pretrained_families import FAMILIES, Family
from pipeline.configuration.settings import read_settings

# The stream decodes half a second at a time, after two seconds of codes that are decoded again as context. DAC sees no
# further than that; EnCodec's LSTM and Mimi's attention do, and then differ slightly from decoding at once.
STREAM_CHUNK_SECONDS = 0.5
STREAM_CONTEXT_SECONDS = 2.0


class PretrainedCodec:
    """EnCodec, DAC or Mimi, on the CPU until `encode_many` moves it, with the first `n_codebooks` of its codebooks.

    Audio is padded with silence to whole frames; F frames decode to F * hop_length samples.
    """

    kind = "pretrained"
    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig, model: Any) -> None:
        self.config = config
        self.family = _family(model.config, config.model)
        self.hop_length = self.family.hop_length(model.config)
        self.model = model.eval().requires_grad_(False)
        fewest, most = self.family.n_codebooks(model.config)
        if not fewest <= config.n_codebooks <= most:
            raise ValueError(
                f"codec.n_codebooks={config.n_codebooks}, but codec.model={config.model} has {fewest} to {most}."
            )

    @classmethod
    def fit(cls, config: PretrainedConfig, waveforms: Waveforms, seed: int) -> "PretrainedCodec":
        """Load the published weights; the waveforms stay unread."""
        architecture = _read_architecture(config.model)
        model_class = getattr(_transformers(), _family(architecture, config.model).model_class)
        model, loading = _load(
            lambda **options: model_class.from_pretrained(
                config.model,
                use_safetensors=True,  # never unpickle
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with the missing ones
                **options,
            ),
            config.model,
        )
        _require_all_weights(loading, f"codec.model={config.model}")
        return cls(config, model)

    @classmethod
    def restore(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "PretrainedCodec":
        """Rebuild the codec from what `state` returned; raises a ValueError that names the field or tensor at fault."""
        config = read_settings(PretrainedConfig, fields["config"], "codec")
        if not isinstance(fields.get("architecture"), dict):
            raise ValueError("the field `architecture` is missing")
        architecture = dict(fields["architecture"])
        family = FAMILIES.get(architecture.pop("model_type", ""))
        if family is None:
            raise ValueError(f"the field `architecture.model_type` must be one of {', '.join(FAMILIES)}")
        model_class = getattr(_transformers(), family.model_class)
        # Through from_pretrained, so that weights written by one transformers release load into another's layout.
        model, loading = model_class.from_pretrained(
            None,
            config=model_class.config_class.from_dict(architecture),
            state_dict=tensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        _require_all_weights(loading, "the codec")
        return cls(config, model)

    @staticmethod
    def sample_rate_of(config: PretrainedConfig) -> int:
        """Return the model's sample rate, from its configuration file alone."""
        architecture = _read_architecture(config.model)
        _family(architecture, config.model)
        return architecture.sampling_rate

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.model.config.sampling_rate

    @property
    def n_codebooks(self) -> int:
        """Codes a frame."""
        return self.config.n_codebooks

    @property
    def codebook_size(self) -> int:
        """Entries of each codebook."""
        return self.model.config.codebook_size

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes [F, Q] of audio [S], brought to the configured loudness first."""
        if len(audio) == 0:
            return torch.zeros(0, self.n_codebooks, dtype=torch.int64)
        return self._encode_equal([self._whole_frames(audio)])[0]

    def encode_many(self, audios: Sequence[Tensor]) -> list[Tensor]:
        """Return the codes [F, Q] of each of several audios [S], none of them empty, computed where they lie.

        Those of equally many frames are computed together. Nothing longer is: convolutions would carry what they make
        of the silence behind a shorter audio back into its last frames.
        """
        self.model.to(audios[0].device)
        by_length: dict[int, list[int]] = {}
        whole = [self._whole_frames(audio) for audio in audios]
        for number, audio in enumerate(whole):
            by_length.setdefault(len(audio), []).append(number)
        codes: dict[int, Tensor] = {}
        for numbers in by_length.values():
            codes |= zip(numbers, self._encode_equal([whole[number] for number in numbers]), strict=True)
        return [codes[number] for number in range(len(audios))]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio [F * hop_length] of codes [F, Q]."""
        codes = checked_codes(codes, self.n_codebooks, self.codebook_size)
        if len(codes) == 0:
            return torch.zeros(0)
        n_samples = len(codes) * self.hop_length
        audio = self.family.decode(self.model, codes.T[None].to(self.model.device)).cpu().flatten()[:n_samples]
        # Odd strides make some decoders a few samples short.
        return torch.nn.functional.pad(audio, (0, n_samples - len(audio)))

    def stream(self) -> ChunkedStream:
        """Start a decoder that decodes half a second at a time with two seconds of context."""
        return ChunkedStream(
            self._decode_chunk,
            self.n_codebooks,
            self.codebook_size,
            chunk_frames=math.ceil(STREAM_CHUNK_SECONDS * self.frame_rate),
            lookahead_frames=self.family.stream_lookahead_frames,
            context_frames=math.ceil(STREAM_CONTEXT_SECONDS * self.frame_rate),
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fields and tensors that `restore` takes: the whole model, so that nothing is downloaded again."""
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_pretrained(folder, max_shard_size="1TB")
            tensors = load_file(Path(folder, "model.safetensors"))
            architecture = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        return {"kind": self.kind, "config": asdict(self.config), "architecture": architecture}, tensors

    def _whole_frames(self, audio: Tensor) -> Tensor:
        """The audio at its loudness, with silence behind it up to a whole frame."""
        audio = normalise_loudness(checked_audio(audio, audio.device), self.config.loudness_db)
        return torch.nn.functional.pad(audio, (0, -len(audio) % self.hop_length))

    @torch.no_grad()
    def _encode_equal(self, audios: Sequence[Tensor]) -> list[Tensor]:
        """Codes [F, Q] of audios of F whole frames each, computed where the model lies."""
        batch = torch.stack(list(audios))[:, None].to(self.model.device)
        codes = self.family.encode(self.model, batch, self.n_codebooks).cpu()
        n_frames = batch.shape[-1] // self.hop_length
        return [one[:, :n_frames].T.contiguous() for one in codes]

    def _decode_chunk(self, codes: Tensor, n_context: int, n_new: int) -> Tensor:
        return self.decode(codes)[n_context * self.hop_length : (n_context + n_new) * self.hop_length]


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "codec.kind=pretrained needs the transformers package: pip install 'melisma[pretrained]'."
        ) from None
    return transformers


def _read_architecture(model: str) -> Any:
    """Return the `transformers` configuration of a hub name or folder."""
    auto_config = _transformers().AutoConfig
    try:
        return _load(lambda **options: auto_config.from_pretrained(model, **options), model)
    except ValueError as error:
        raise ValueError(f"codec.model={model} has a configuration that transformers cannot read: {error}") from error


def _load(load: Callable[..., Any], model: str) -> Any:
    """Load from the folder or the local cache first, and from the hub only when that has nothing."""
    is_folder = Path(model).is_dir()
    if not is_folder and (Path(model).is_absolute() or model.startswith(".")):
        raise FileNotFoundError(
            f"codec.model={model} is no folder; give a hub name, or a folder that save_pretrained wrote."
        )
    try:
        return load(local_files_only=True)
    except (OSError, SafetensorError) as error:
        reason: Exception = error
    if not is_folder:
        try:
            return load(local_files_only=False)
        except OSError as error:
            reason = error
    summary = str(reason).strip().splitlines()[0]
    raise FileNotFoundError(
        f"codec.model={model} cannot be loaded ({summary}). Without a network, download it on a connected machine with "
        f"`hf download {model} --local-dir FOLDER`, copy the folder here, and set codec.model=FOLDER."
    ) from reason


def _family(architecture: Any, model: str) -> Family:
    """Return the family of a `transformers` configuration; a ValueError says why a model cannot be used."""
    family = FAMILIES.get(architecture.model_type)
    if family is None:
        raise ValueError(f"codec.model={model} is of type {architecture.model_type}; use {', '.join(FAMILIES)}.")
    if reason := family.unsupported(architecture):
        raise ValueError(f"codec.model={model} cannot be used: {reason}.")
    return family


def _require_all_weights(loading: dict[str, Any], source: str) -> None:
    """Raise a ValueError unless every weight was found in its place: transformers would make up the missing ones."""
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{source} lacks weights: the tensor `{missing[0]}` is missing")
    if mismatched := sorted(str(key) for key in loading["mismatched_keys"]):
        raise ValueError(f"{source} has weights of another shape: {mismatched[0]}")
