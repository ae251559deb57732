"""The text of a model card, from a LoRA's metadata. Nothing in a file is trusted: every value stays plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import regex

from ..common.text import JOINERS

KEY = "scoft"
"""The metadata entry that holds our record, as JSON."""

NOT_STATED = "not stated"
NOT_MEANS = ("learning_rate", "loss", "validation", "training_pictures")
"""Metrics of older records that are not shown as means: they stand elsewhere on the card, or are running means."""
SAME = "the same"
"""In place of a consent of the dataset that the LoRA's own repeats."""
LONGEST = 2000
_OUTER_UNDERSCORE = regex.compile(r"(?<![\p{L}\p{M}\p{N}])_|_(?![\p{L}\p{M}\p{N}])")  # inside a word it is a letter
_ENTITY = re.compile(r"&(?=\\?#?\w+;)")  # elsewhere an & is an &
_ESCAPES = str.maketrans({sign: "\\" + sign for sign in "\\`*[]<>|~#"})

LIMITS = """\
- The images a LoRA makes are not records of a culture. They repeat what a few people chose to show, and a consensus
  among them can hide what others of the same community see.
- The base model was trained on images whose makers were, for the most part, never asked. This LoRA does not
  undo that.
- What teaches a model to show people as they see themselves can be turned around to make images that hurt them. Do
  not use this LoRA to mock, to stereotype or to deceive, or to pass images off as photographs of real people or
  events.
- The images it was trained on belong to those who made them; this card gives no right to them.
- Ask members of the community before you publish images in their name."""

UNKNOWN = (
    "This file carries no record of who was asked. Not known: whose culture it shows, who took and who chose the "
    "images, whether anyone agreed, under which license it may be used. Ask whoever shared it before you use it."
)


def card_text(metadata: Mapping[str, str], file_name: str = "") -> str:
    """The card in Markdown, of a LoRA with our record or of any other one, which then says what is not known."""
    own = _own(metadata)
    fields, record = _part(own, "fields"), _part(own, "record")
    title = fields.get("title") or metadata.get("modelspec.title") or file_name or "LoRA"
    sections = [f"# {plain(title)}", _whose(record, fields, metadata)]
    if not own:
        sections.insert(1, UNKNOWN)
    sections += [_data(_part(record, "dataset")), _made(record, metadata), f"## Limits\n\n{LIMITS}"]
    return "\n\n".join(section for section in sections if section) + "\n"


def plain(value: Any) -> str:
    """A value as one line of text: no line break, no Markdown, no HTML; the longest are cut, with an ellipsis."""
    text = " ".join(str(value).split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    text = "".join(sign for sign in text if sign.isprintable() or sign in JOINERS)
    text = _ENTITY.sub(r"\\&", text.translate(_ESCAPES))
    return _OUTER_UNDERSCORE.sub(r"\\_", text)


def _own(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(KEY, ""))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(whole: dict[str, Any], key: str, kind: type = dict) -> Any:
    """An entry that should be of that kind; in a file from elsewhere it may be anything, which is an empty one."""
    found = whole.get(key)
    return found if isinstance(found, kind) else kind()


def _list(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(f"- {label}: {value or NOT_STATED}" for label, value in rows)


def _tally(found: dict[str, Any], total: Any) -> str:
    """`Kora (40), Limu (3)`; the count is left out where an entry holds for all; "" is what nobody has said."""
    rows = [(name, number) for name, number in found.items() if name]
    if not rows:
        return ""
    parts = [plain(name) if number == total else f"{plain(name)} ({plain(number)})" for name, number in rows[:20]]
    parts += [f"and {len(rows) - 20} more"] if len(rows) > 20 else []
    parts += [f"{NOT_STATED} ({plain(found[''])})"] if found.get("") else []
    return ", ".join(parts)


def _whose(record: dict[str, Any], fields: dict[str, Any], metadata: Mapping[str, str]) -> str:
    data = _part(record, "dataset")
    total = data.get("pictures")
    verified = _tally(_part(data, "verified_by"), total)
    if verified:
        verified = f"{plain(data.get('verified', 0))} of {plain(total)} images, by {verified}"

    consent = plain(fields.get("consent", ""))
    each = {SAME if consent and plain(text) == consent else text: n for text, n in _part(data, "consent").items()}
    in_dataset = _tally(each, total)
    if in_dataset and in_dataset != SAME:
        consent = f"{consent} In the dataset: {in_dataset}".strip()

    def stated(own: str, foreign: str) -> str:
        return plain(fields.get(own) or metadata.get(f"modelspec.{foreign}", ""))

    return "## Whose culture, and who agreed\n\n" + _list(
        [
            ("Culture", _tally(_part(data, "culture"), total)),
            ("Place", _tally(_part(data, "place"), total)),
            ("Consent and provenance", consent),
            ("Collected by", _tally(_part(data, "collector"), total)),
            ("Sources", _tally(_part(data, "source"), total)),
            ("Verified", verified),
            ("License of the images", _tally(_part(data, "licence"), total)),
            ("License of this LoRA", stated("licence", "license")),
            ("Authors of this LoRA", stated("authors", "author")),
            ("Trigger phrase", stated("trigger_phrase", "trigger_phrase")),
        ]
    )


def _data(data: dict[str, Any]) -> str:
    if not data:
        return ""
    images, captions, long = (data.get(key) for key in ("pictures", "captions", "long_captions"))
    several = "one caption each" if captions in (None, images) else f"{plain(captions)} captions"
    several += f" ({plain(long)} of more than 75 tokens)" if long else ""
    head = (
        f"## Data\n\n{plain(images or 0)} images of the set “{plain(data.get('name', ''))}” with {several}, "
        f"{plain(data.get('generic_captions', 0))} generic captions and {plain(data.get('negatives', 0))} negatives."
    )
    rows = [row for row in _part(data, "counts", list) if isinstance(row, list) and len(row) == 3]
    table = "\n".join(f"| {plain(a) or NOT_STATED} | {plain(b) or NOT_STATED} | {plain(n)} |" for a, b, n in rows)
    return f"{head}\n\n| category | era | images |\n| --- | --- | ---: |\n{table}" if table else head


def _made(record: dict[str, Any], metadata: Mapping[str, str]) -> str:
    if not record:
        return _made_elsewhere(metadata)
    base, train = _part(record, "base"), _part(record, "train")
    # The hash of a network's weights is no "weights" beside the loss's "weight".
    losses = [
        _renamed(loss, "weights", "fingerprint") for loss in _part(record, "losses", list) if isinstance(loss, dict)
    ]
    rows: list[tuple[str, Any]] = [
        ("Method", "SCoFT, self-contrastive fine-tuning (Liu et al., CVPR 2024)"),
        ("Base model", f"{plain(base.get('name', ''))} (family {plain(base.get('family', ''))})"),
        ("Losses", "; ".join(f"{plain(loss.get('name', ''))}: {_settings(loss, 'name')}" for loss in losses)),
        ("Optimizer steps", f"{plain(record.get('steps', ''))} of {plain(train.get('steps', ''))}"),
        ("Seed", plain(train.get("seed", ""))),
        ("Training", _settings(train, "steps", "seed")),
        ("LoRA", _settings(_part(record, "lora"))),
        ("Optimizer", _settings(_renamed(_part(record, "optimizer"), "learning_rate", "peak_learning_rate"))),
    ]
    if any(loss.get("name") in ("perceptual", "contrastive") for loss in losses):
        rows.append(("Rollout", _settings(_part(record, "rollout"))))
    steps, held_out = record.get("averaged_steps"), _part(record, "held_out")
    over = f"last {plain(steps)} steps" if steps else "last tenth of the steps"
    rows += [
        (f"Means over the {over}", _settings(_part(record, "last"), *NOT_MEANS)),
        ("Learning rate of the last step", _number(record.get("last_learning_rate", ""))),
        ("Held-out images", plain(held_out.get("reading", "")) or _unread(held_out.get("pictures", 0))),
        ("Time since the last start", f"{plain(record.get('seconds', ''))} s"),
        ("Versions", _settings(_part(record, "versions"))),
    ]
    return "## How it was made\n\n" + _list(rows)


def _made_elsewhere(metadata: Mapping[str, str]) -> str:
    known = {
        "Base model": "ss_sd_model_name",
        "Base model family": "ss_base_model_version",
        "Architecture": "modelspec.architecture",
        "Images": "ss_num_train_images",
        "Steps": "ss_steps",
        "Seed": "ss_seed",
        "Rank": "ss_network_dim",
        "Alpha": "ss_network_alpha",
        "Learning rate": "ss_learning_rate",
        "Description": "modelspec.description",
        "Date": "modelspec.date",
    }
    return "## How it was made\n\n" + _list([(label, plain(metadata.get(key, ""))) for label, key in known.items()])


def _renamed(values: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    return {name if own == key else own: value for own, value in values.items()}


def _settings(values: dict[str, Any], *without: str) -> str:
    """`rank 64, alpha 64`, without the options that are not used."""
    shown = {}
    for key, value in values.items():
        if key not in without and value is not None and value is not False and value != "":
            shown[plain(key.replace("_", " "))] = "on" if value is True else _number(value)
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _unread(held_out: Any) -> str:
    """In place of a reading of so many held-out images."""
    return f"{plain(held_out)}, measured too few times to see overfitting" if held_out else "none"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain(value)
