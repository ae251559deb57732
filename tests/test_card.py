"""The model card says whose culture, who agreed and how it was made; what a file says stays text."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import html
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown import markdown
from markdown_it import MarkdownIt
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialize
from toys import toy_dataset, toy_run

from comfy_scoft.losses import DiffusionLoss, MemorizationLoss
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.model_card import (
    CardFields,
    described_dataset,
    lora_metadata,
    read_card,
    save_lora,
    training_record,
)
from comfy_scoft.training.model_card_text import UNKNOWN, card_text, plain
from comfy_scoft.training.validation import reading

FIELDS = CardFields("Toys of ours", "in Toyland", "The toys", "CC-BY-4.0", "All toys agreed, in writing.")
TENSORS = {
    "lora_unet_a.lora_down.weight": torch.ones(4, 8, dtype=torch.float16),
    "lora_unet_a.lora_up.weight": torch.ones(8, 4, dtype=torch.float16),
    "lora_unet_a.alpha": torch.tensor(2.0, dtype=torch.float16),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """A LoRA and its record, of a dataset whose provenance is known in part."""
    folder = tmp_path_factory.mktemp("card")
    data = toy_dataset(folder / "data")
    known = {"category": "clothing", "era": "modern", "collector": "Ama", "consent": "yes", "verified_by": ("Efe",)}
    first = dataclasses.replace(data.records[0], **known)
    data = data.replace([first, *data.records[1:]])
    run = toy_run(folder, [DiffusionLoss(), MemorizationLoss()], dataset=data, steps=1)
    result, rows = runs.train_and_log(run)
    return result.lora, training_record(run, result, rows, 1.5)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_the_card_says_whose_who_and_how(tmp_path: Path, trained: tuple) -> None:
    path = save_lora(tmp_path, "toys", trained[0], FIELDS, trained[1])
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    for line in (
        "# Toys of ours",
        "- Culture: toy",
        "- Place: Toyland",
        "- Consent and provenance: All toys agreed, in writing. In the dataset: yes (1), not stated (3)",
        "- Held-out images: none",
        "- Collected by: Ama (1), not stated (3)",
        "- Verified: 1 of 4 images, by Efe (1)",
        "- License of the images: not stated",
        "- License of this LoRA: CC-BY-4.0",
        "- Trigger phrase: in Toyland",
        "| clothing | modern | 1 |",
        "| not stated | not stated | 3 |",
        "- Base model: toy (family mini)",
        "- Losses: diffusion: weight 0.7, min snr gamma 0; memorization: weight 0.3, reference current",
        "- Optimizer steps: 1 of 1",
        "- Seed: 7",
        "- LoRA: rank 2, alpha 3, targets attention, dropout 0",
        "## Limits",
    ):
        assert line in text.splitlines(), line
    assert "Rollout" not in text  # no loss of this run looks at images
    (means,) = (line for line in text.splitlines() if line.startswith("- Means over the last 1 steps: "))
    assert "diffusion " in means and "learning rate" not in means, "a mean of rates is nobody's rate"
    assert f"torch {version('torch')}" in text
    assert read_card(path) == text
    loaded = load_file(path)
    assert loaded.keys() == trained[0].keys() and all(torch.equal(loaded[k], trained[0][k]) for k in loaded)


def test_no_caption_leaves_with_the_lora(tmp_path: Path, trained: tuple) -> None:
    path = save_lora(tmp_path, "toys", trained[0], FIELDS, trained[1])
    assert b"thing of ours" not in path.read_bytes() and b"thing 0 seen" not in path.read_bytes()


def test_what_nobody_said_is_called_not_stated(tmp_path: Path) -> None:
    text = save_lora(tmp_path, "bare", TENSORS, CardFields()).with_suffix(".md").read_text(encoding="utf-8")
    assert "- Consent and provenance: not stated" in text.splitlines() and "# bare_00001" in text
    assert text.count("not stated") > 10


def test_the_line_in_the_file_names_the_datasets_consent_as_the_card_does(trained: tuple) -> None:
    for stated, line in (("", "yes"), ("Asked.", "Asked")):
        found = lora_metadata(trained[0], CardFields(consent=stated), trained[1])["modelspec.description"]
        assert found == f"A LoRA of toy, Toyland. Consent and provenance: {line}. The model card says the rest."


def test_managers_find_the_metadata_they_read(tmp_path: Path, trained: tuple) -> None:
    path = save_lora(tmp_path, "toys", trained[0], FIELDS, trained[1])
    found = metadata_of(path)
    assert found["ss_network_module"] == "networks.lora"
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("2", "3")
    assert found["ss_output_name"] == "toys_00001" and found["ss_sd_model_name"] == "toy"
    assert json.loads(found["ss_tag_frequency"]) == {"toys": {"toy": 4, "Toyland": 4, "clothing": 1}}
    assert json.loads(found["ss_datasets"])[0]["num_train_images"] == 4
    assert float(found["ss_training_started_at"]) < float(found["ss_training_finished_at"])
    assert found["modelspec.architecture"] == "scoft-mini/lora" and found["modelspec.title"] == "Toys of ours"
    assert found["modelspec.author"] == "The toys" and found["modelspec.license"] == "CC-BY-4.0"
    assert found["modelspec.trigger_phrase"] == "in Toyland" and "All toys agreed" in found["modelspec.description"]


def test_the_hash_is_that_of_the_tensor_data_as_kohya_takes_it(tmp_path: Path) -> None:
    path = save_lora(tmp_path, "bare", TENSORS, FIELDS)
    data = path.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    found = metadata_of(path)
    assert found["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert found["modelspec.hash_sha256"] == "0x" + found["sshs_model_hash"]
    assert len(found["sshs_legacy_hash"]) == 8


def test_no_file_is_overwritten_and_numbers_go_on(tmp_path: Path) -> None:
    (tmp_path / "x_00007.md").write_text("kept")
    names = [save_lora(tmp_path, "x", TENSORS, FIELDS).name for _ in range(2)]
    assert names == ["x_00008.safetensors", "x_00009.safetensors"]
    assert (tmp_path / "x_00007.md").read_text() == "kept"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".md"] * 3 + [".safetensors"] * 2


SAVING = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import os, torch
from comfy_scoft.training.model_card import CardFields, save_lora
if sys.argv[3] == "no links":
    def refuse(*_): raise PermissionError(1, "Operation not permitted")
    os.link = refuse
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    print(save_lora(Path(sys.argv[2]), "x", {"a.alpha": torch.ones(())}, CardFields()).name, flush=True)
"""


@pytest.mark.parametrize("system", ["links", "no links"])
@pytest.mark.long
def test_processes_that_save_at_once_get_numbers_of_their_own(tmp_path: Path, system: str) -> None:
    root, folder = str(Path(__file__).resolve().parent.parent), tmp_path / "loras"
    command = [sys.executable, "-c", SAVING, root, str(folder), system]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate(timeout=200)[0].split()]
    assert sorted(names) == [f"x_{number:05}.safetensors" for number in range(1, 16)]
    assert sorted(path.name for path in folder.glob("*.safetensors")) == sorted(names)
    assert all(len(load_file(path)) == 1 and path.with_suffix(".md").is_file() for path in folder.glob("*.safetensors"))
    assert len(list(folder.iterdir())) == 30, "no claim and no part is left"


@pytest.mark.parametrize("system", ["links", "no links"])
def test_a_number_that_another_process_takes_meanwhile_is_left_to_it(tmp_path: Path, system: str, monkeypatch) -> None:
    def serialized(tensors: dict, data: dict) -> bytes:
        if data["ss_output_name"] == "x_00001":
            (tmp_path / "x_00001.safetensors").write_bytes(b"another's")
        return serialize(tensors, data)

    monkeypatch.setattr("comfy_scoft.training.model_card.serialize", serialized)
    if system == "no links":
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOTSUP, "not supported")))
    path = save_lora(tmp_path, "x", TENSORS, FIELDS)
    assert path.name == "x_00002.safetensors" and metadata_of(path)["ss_output_name"] == "x_00002"
    assert (tmp_path / "x_00001.safetensors").read_bytes() == b"another's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x_00001.safetensors", "x_00002.md", "x_00002.safetensors"]


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", ""])
def test_a_lora_name_with_a_path_is_refused_and_nothing_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="The LoRA name .* cannot name a file"):
        save_lora(tmp_path / "loras", name, TENSORS, FIELDS)
    assert not (tmp_path / "loras").exists()


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> bytes:
        raise OSError("No space left on device")

    monkeypatch.setattr("comfy_scoft.training.model_card.serialize", full)
    with pytest.raises(OSError, match="No space"):
        save_lora(tmp_path, "x", TENSORS, FIELDS)
    assert list(tmp_path.iterdir()) == []


HOSTILE = "<script>x</script> [a](http://b) `c` **d**\n# heading\n| e | f |\x00\u202eg"


def test_words_with_markup_in_them_stay_words(tmp_path: Path) -> None:
    fields = CardFields(*(HOSTILE,) * 5)
    record = {"dataset": {"name": HOSTILE, "culture": {HOSTILE: 2}, "pictures": 3, "counts": [[HOSTILE, HOSTILE, 1]]}}
    metadata = {"scoft": json.dumps({"fields": dataclasses.asdict(fields), "record": record})}
    text = card_text(metadata)
    assert (
        "<script" not in text.replace(r"\<", "") and "[a](" not in text and "\x00" not in text and "\u202e" not in text
    )
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [
        "## Whose culture, and who agreed",
        "## Data",
        "## How it was made",
        "## Limits",
    ]
    assert plain("food & drink, &lt;b&gt; &#60;") == r"food & drink, \&lt;b\&gt; \&\#60;"
    assert plain("Ìlú\u200d ক্ষ — 한국") == "Ìlú\u200d ক্ষ — 한국"
    assert len(plain("x" * 10_000)) == 2000


NAMES = [
    "हिन्दी_गाँव", "Ìlú", "فارسی می‌خواهم", "한국의 시장", "*Kora* & _Limu_", "a | b", "C# [x](y)", 
    "&lt;b&gt; &copy; <i>x</i>",
    "Ama <ama@example.org>", "https://example.org/a_(b)?x=1&copy;=2", "~~no~~ `code` \\", "1. x", "<!-- x -->",
]  # fmt: skip


def test_a_rendered_card_shows_every_name_as_it_was_written() -> None:
    """By CommonMark with tables, as sites show it; and an older Markdown at least makes no HTML of a name."""
    data = {"name": NAMES[0], "pictures": 99, "counts": [[name, name, 1] for name in NAMES]}
    data |= {key: dict.fromkeys(NAMES, 2) for key in ("culture", "place", "source", "collector", "consent")}
    for name in NAMES:
        fields = {"title": name, "trigger_phrase": name, "authors": name, "licence": name, "consent": name}
        text = card_text({"scoft": json.dumps({"fields": fields, "record": {"dataset": data, "losses": []}})})
        assert not re.search(r"(?<!\\)&#?\w+;", text), "an HTML entity"
        page = MarkdownIt("commonmark").enable("table").render(text)
        assert set(re.findall(r"</?([a-z0-9]+)", page)) == set("h1 h2 p ul li table thead tbody tr th td".split())
        shown = [html.unescape(re.sub("<[^>]*>", "", part)) for part in page.splitlines()]
        assert shown[0] == name and f"Trigger phrase: {name}" in shown and f"License of this LoRA: {name}" in shown
        assert shown.count(name) >= 3, "title and table"
        for one in NAMES:
            assert f"{one} (2)" in next(line for line in shown if line.startswith("Sources: "))
        assert not re.search(r"<(i|b|script|del)\b", markdown(text, extensions=["tables"]))


def test_a_consent_that_dataset_and_lora_share_stands_once() -> None:
    def consent(stated: str, **in_dataset: int) -> str:
        record = {"dataset": {"pictures": 4, "consent": {key.replace("_", " "): n for key, n in in_dataset.items()}}}
        text = card_text({"scoft": json.dumps({"fields": {"consent": stated}, "record": record})})
        (line,) = (line for line in text.splitlines() if line.startswith("- Consent and provenance: "))
        return line.removeprefix("- Consent and provenance: ")

    assert consent("all agreed", all_agreed=4) == consent(" all  agreed", all_agreed=4) == "all agreed"
    assert consent("all agreed", all_agreed=3, **{"": 1}) == "all agreed In the dataset: the same (3), not stated (1)"
    assert consent("", all_agreed=4) == "In the dataset: all agreed"
    assert consent("all agreed", **{"": 4}) == "all agreed" and consent("", **{"": 4}) == "not stated"


def test_each_name_on_the_card_is_one_thing(tmp_path: Path) -> None:
    """A long run: what is a mean says so and of how many steps; the rate and the held-out loss are the last ones."""
    steps = [{"step": i, "loss": 9.0, "diffusion": float(i), "learning_rate": 1e-3 / i} for i in range(1, 201)]
    held_out = [{"step": i, "validation": (400 - i) / 100, "training_pictures": 1.0} for i in (50, 100, 150, 200)]
    rows = sorted([*steps, *held_out], key=lambda row: row["step"])
    found = runs.summary(rows)
    assert found == {"last": {"diffusion": 190.5}, "averaged_steps": 20, "last_learning_rate": 5e-6}
    record = {**found, "held_out": {"pictures": 3, "reading": reading(rows)}, "optimizer": {"learning_rate": 1e-3}}
    record["losses"] = [{"name": "perceptual", "weight": 0.5, "weights": "c10cfd76"}]
    record["train"], record["seconds"] = {"flip": True}, 1.5
    lines = card_text({"scoft": json.dumps({"record": record})}).splitlines()
    for line in (
        "- Means over the last 20 steps: diffusion 190.5",
        "- Learning rate of the last step: 5e-06",
        "- Optimizer: peak learning rate 0.001",
        "- Losses: perceptual: weight 0.5, fingerprint c10cfd76",
        "- Training: flip on",
    ):
        assert line in lines, line
    assert sum("2.0000" in line for line in lines) == 1 and not any("validation" in line for line in lines)
    old = {"last": {"diffusion": 1.0, "validation": 2.0, "learning_rate": 3.0}, "held_out": {"pictures": 3}}
    lines = card_text({"scoft": json.dumps({"record": old})}).splitlines()
    assert "- Means over the last tenth of the steps: diffusion 1" in lines
    assert "- Held-out images: 3, measured too few times to see overfitting" in lines


def test_the_card_of_another_trainers_lora_says_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(TENSORS, path, {"ss_sd_model_name": "some<b>.ckpt", "ss_seed": "42", "modelspec.license": "MIT"})
    text = read_card(path)
    assert UNKNOWN in text and "# other.safetensors" in text
    assert "- Seed: 42" in text and r"- Base model: some\<b\>.ckpt" in text and "- License of this LoRA: MIT" in text
    assert "- Consent and provenance: not stated" in text
    save_file(TENSORS, path)
    assert UNKNOWN in read_card(path)


@pytest.mark.parametrize(
    "entry",
    ["", "{", "[]", "3", '{"fields": 5, "record": {"dataset": {"counts": 3, "culture": []}, "losses": 2}}', "[" * 9999],
)
def test_a_record_of_any_shape_still_gives_a_card(entry: str) -> None:
    assert "## Limits" in card_text({"scoft": entry}, "file")


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"not at all")
    with pytest.raises(ValueError, match="bad.safetensors is not a safetensors file"):
        read_card(tmp_path / "bad.safetensors")


def test_a_data_set_is_counted_by_category_and_era(tmp_path: Path) -> None:
    found = described_dataset(toy_dataset(tmp_path))
    assert (found["pictures"], found["negatives"], found["generic_captions"]) == (4, 6, 1 + 2 + 3 + 1)
    assert found["counts"] == [["", "", 4]] and found["culture"] == {"toy": 4} and found["verified"] == 0
