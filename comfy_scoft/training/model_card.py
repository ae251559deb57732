"""The model card: what a shared LoRA must say about whose culture it shows, who agreed, and how it was made.

One record of a training run becomes metadata in the LoRA's file, and the metadata becomes the card's text. A card is
only ever made from the metadata, so the text beside a file and the one read from it by somebody else are the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..common.errors import UserError
from ..common.files import regular, write_numbered
from ..common.fingerprints import versions
from ..common.names import checked_name
from ..data.dataset import counts
from ..data.records import Dataset
from ..models.text_encoder import is_long
from ..models.weight_files import require_finite
from .model_card_text import KEY, NOT_STATED, card_text
from .resume import run_identity
from .run import Run
from .run_folder import summary
from .trainer import Result
from .validation import reading

KOHYA_NAMES = {
    "sd1": ("sd_1.5", "stable-diffusion-v1/lora"),
    "sd2": ("sd_2.1", "stable-diffusion-v2-768-v/lora"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    "mini": ("scoft_mini", "scoft-mini/lora"),
}
"""`ss_base_model_version` and `modelspec.architecture` of each family of base models."""


class TrainedLora(dict[str, Tensor]):
    """A LoRA's tensors by kohya name, which any node takes as the plain dict it is, with its training `record`."""

    def __init__(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        super().__init__(tensors)
        self.record = dict(record)


@dataclass(frozen=True)
class CardFields:
    """What only people can state. Where one is empty, the card says "not stated".

    title; trigger_phrase: what in a prompt evokes what was learned; authors; licence: of the LoRA; consent: who agreed,
    to what, and where the images come from.
    """

    title: str = ""
    trigger_phrase: str = ""
    authors: str = ""
    licence: str = ""
    consent: str = ""


def training_record(run: Run, result: Result, rows: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    """What is known of a finished run, as plain JSON: data, losses, settings, versions. No caption, no image."""
    facts = run_identity(run)
    return {
        **facts,
        "run": run.folder.name,
        "base": {"name": run.base.name, **facts["base model"]},
        "dataset": {**described_dataset(run.dataset), "identity": facts["dataset"]},
        "held_out": {"pictures": len(run.validation or ()), "reading": reading(rows)},
        "economy": result.memory_options.as_json(),
        "steps": result.steps,
        "finished": int(time.time()),
        "seconds": round(seconds, 1),
        **summary(rows),
        "versions": versions(),
    }


def described_dataset(dataset: Dataset) -> dict[str, Any]:
    """Counts and provenance of a dataset as plain JSON; each distinct entry once, with how many images have it."""
    records = dataset.records
    fields = ("culture", "place", "source", "collector", "licence", "consent")
    return {
        "name": dataset.name,
        "pictures": len(records),
        "captions": len(dataset.captions),
        "long_captions": sum(map(is_long, dataset.captions)),
        "negatives": sum(len(r.negatives) for r in records),
        "generic_captions": sum(len(r.generic_captions) for r in records),
        "counts": [[category, era, number] for (category, era), number in counts(dataset).items()],
        "verified_by": dict(Counter(who for r in records for who in r.verified_by)),
        "verified": sum(1 for r in records if r.verified_by),
        **{name: dict(Counter(getattr(r, name) for r in records)) for name in fields},
    }


def lora_metadata(
    tensors: Mapping[str, Tensor], fields: CardFields, record: Mapping[str, Any] | None = None, name: str = ""
) -> dict[str, str]:
    """The metadata of a LoRA's file: kohya's `ss_…`, `modelspec.…`, and our own record as JSON under `scoft`.

    Without a record (a LoRA of another trainer) only what the tensors themselves and the fields say is written.
    """
    record = dict(record or {})
    data = {KEY: json.dumps({"fields": asdict(fields), "record": record})}
    data["ss_output_name"] = name
    data["ss_network_module"] = "networks.lora"
    data["ss_network_dim"], data["ss_network_alpha"] = _rank_and_alpha(tensors)
    if record:
        data |= _kohya(record)
    data["modelspec.sai_model_spec"] = "1.0.0"
    data["modelspec.date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.get("finished")))
    data["modelspec.title"] = fields.title or name
    stated = {"author": fields.authors, "license": fields.licence, "trigger_phrase": fields.trigger_phrase}
    data |= {f"modelspec.{key}": value for key, value in stated.items() if value}
    data["modelspec.description"] = _one_line(record, fields)
    data = {key: value.encode("utf-8", "replace").decode() for key, value in data.items() if value}
    return data | _hashes(tensors, data)


def save_lora(
    folder: Path,
    prefix: str,
    tensors: Mapping[str, Tensor],
    fields: CardFields,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write `<prefix>_00001.safetensors` (the next free number) and its card `.md` beside it; returns the former.

    Each file appears whole or not at all, the LoRA after its card, and none is overwritten. Raises UserError for a
    name that holds a path, and DiskError.
    """
    prefix = checked_name(prefix, "LoRA name")
    require_finite(tensors, f"The LoRA {prefix!r}")

    def files(name: str) -> dict[str, bytes]:
        data = lora_metadata(tensors, fields, record, name)
        card = card_text(data, f"{name}.safetensors").encode()
        return {".md": card, ".safetensors": serialize(dict(tensors), data)}

    return write_numbered(folder, prefix, files)


def read_card(path: Path) -> str:
    """The card of a LoRA's file, ours or another trainer's, from its metadata alone. UserError for a damaged one."""
    try:
        with safe_open(regular(path), framework="pt") as file:
            found = file.metadata() or {}
    except Exception as error:  # safetensors raises its own kind for damaged files, and OSError for missing ones
        raise UserError(
            f"{path.name} is not a safetensors file that can be read, so it has no card: choose another LoRA."
        ) from error
    return card_text(found, path.name)


def _rank_and_alpha(tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """Rank and alpha as kohya writes them, read from the tensors; "Dynamic" where modules differ, "" where unknown."""
    ranks = {value.shape[0] for key, value in tensors.items() if key.endswith("lora_down.weight")}
    alphas = {float(value) for key, value in tensors.items() if key.endswith(".alpha")}
    rank, alpha = (("Dynamic" if found else "") if len(found) != 1 else f"{found.pop():g}" for found in (ranks, alphas))
    return rank, alpha


def _kohya(record: Mapping[str, Any]) -> dict[str, str]:
    """kohya's names for what a record says. `ss_tag_frequency` counts cultures, places and categories, no captions."""
    base, data, train = record["base"], record["dataset"], record["train"]
    version, architecture = KOHYA_NAMES.get(base["family"], ("", ""))
    tags: Counter[str] = Counter()
    for found in (data["culture"], data["place"]):
        tags.update({tag: number for tag, number in found.items() if tag})
    for category, _, number in data["counts"]:
        if category:
            tags[category] += number
    frequency = {data["name"]: dict(tags)}
    size = train["resolution"]
    images = {"num_train_images": data["pictures"], "resolution": [size, size], "enable_bucket": train["buckets"]}
    return {
        "ss_base_model_version": version,
        "ss_sd_model_name": base["name"],
        "ss_v2": str(base["family"] == "sd2"),
        "ss_dataset_dirs": json.dumps({data["name"]: {"n_repeats": 1, "img_count": data["pictures"]}}),
        "ss_datasets": json.dumps(
            [images | {"batch_size_per_device": train["batch_size"], "tag_frequency": frequency}]
        ),
        "ss_tag_frequency": json.dumps(frequency),
        "ss_num_train_images": str(data["pictures"]),
        "ss_resolution": f"({size}, {size})",
        "ss_batch_size_per_device": str(train["batch_size"]),
        "ss_gradient_accumulation_steps": str(train["accumulation"]),
        "ss_steps": str(record["steps"]),
        "ss_max_train_steps": str(train["steps"]),
        "ss_learning_rate": str(record["optimizer"]["learning_rate"]),
        "ss_lr_scheduler": record["optimizer"]["schedule"],
        "ss_optimizer": record["optimizer"]["optimizer"],
        "ss_lr_warmup_steps": str(record["optimizer"]["warmup"]),
        "ss_noise_offset": str(train["noise_offset"] or None),
        "ss_mixed_precision": "no" if train["precision"] == "fp32" else train["precision"],
        "ss_seed": str(train["seed"]),
        "ss_training_started_at": str(record["finished"] - record["seconds"]),
        "ss_training_finished_at": str(record["finished"]),
        "modelspec.architecture": architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": "v" if base["prediction"] == "v_prediction" else "epsilon",
    }


def _one_line(record: Mapping[str, Any], fields: CardFields) -> str:
    data = record.get("dataset", {})
    places = [name for key in ("culture", "place") for name in data.get(key, {}) if name]
    about = f" of {', '.join(dict.fromkeys(places))}" if places else ""
    consent = fields.consent or "; ".join(text for text in data.get("consent", {}) if text) or NOT_STATED
    return f"A LoRA{about}. Consent and provenance: {consent.rstrip('.')}. The model card says the rest."


def _hashes(tensors: Mapping[str, Tensor], data: Mapping[str, str]) -> dict[str, str]:
    """kohya's two hashes of the file's bytes with the `ss_…` metadata alone: of the tensor data, and the old one."""
    whole = serialize(dict(tensors), {key: value for key, value in data.items() if key.startswith("ss_")})
    body = hashlib.sha256(whole[8 + int.from_bytes(whole[:8], "little") :]).hexdigest()
    legacy = hashlib.sha256(whole[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    return {"sshs_model_hash": body, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": "0x" + body}
