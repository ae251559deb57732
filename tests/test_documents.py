"""The documents: what they link to and name is there, the README's image can be made again, and the walk names code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import readme_image

from comfy_scoft.common.settings import declaration
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss
from comfy_scoft.losses.rollout import RolloutSettings
from comfy_scoft.models.lora import LoraSettings
from comfy_scoft.negatives.generate import NegativeSettings
from comfy_scoft.training.settings import OptimizerSettings, TrainSettings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "comfy_scoft").rglob("*.md"))
)
MAPS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "NOTICE")
"""These name files of the checkout from its root."""
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
NAMED = re.compile(r"(?<![\w/.])(?:comfy_scoft|tests|tools|benchmarks|docs|web|workflows|locales|\.ci)/[\w./+-]*\w/?")
OF_USERS = {"market.txt", "job.json"}
"""Names of files that a person or the pack makes."""
VERBS = "Load Save Make Export Build Plot Read Train Generate Estimate Filter Attach Merge Learn Compare Aggregate"
NODES_OF_COMFYUI = {"Load CLIP", "Load VAE", "Load LoRA", "Plot Loss Graph"}
MADE = {"web/docs/SCoFT_Saturation.md"}
"""Written by following a recipe."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_a_node_has_one_name_in_messages_and_documents() -> None:
    """`Load Features` and `Export Job` were names of nodes once: a person looks for them in vain."""
    nodes = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "comfy_scoft/comfyui/nodes").glob("*.py"))
    known = set(re.findall(r'display_name ?= ?"([^"]+) \(SCoFT\)"', nodes)) | NODES_OF_COMFYUI
    phrase = re.compile(rf"\b(?:{VERBS.replace(' ', '|')})(?: [A-Z][A-Za-z]+)+\b(?! [1-9])")
    other = []
    for path in [*(ROOT / "comfy_scoft").rglob("*.py"), *map(ROOT.joinpath, DOCUMENTS), *ROOT.glob("web/docs/*.md")]:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            constants = (node.value for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Constant))
            content = "\n".join(value for value in constants if isinstance(value, str))
        other += [f"{path.name}: {name}" for name in phrase.findall(content) if name not in known]
    assert known > {"Train LoRA", "Load Feature Network", "Export Training Job"} and other == []


def anchors(name: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text(name), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", text(name), flags=re.DOTALL | re.MULTILINE)
    for link in ("".join(found) for found in LINK.findall(prose)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), link


@pytest.mark.parametrize("name", MAPS)
def test_every_file_that_a_map_names_is_there(name: str) -> None:
    named = set(NAMED.findall(text(name)))
    new = {path for path in re.findall(r"^ *# (comfy_scoft/\S+\.py)$", text(name), re.MULTILINE)}  # a recipe's own
    missing = sorted(path for path in named - new - MADE if not (ROOT / path).exists())
    assert (named or name == "NOTICE") and not missing
    bare = set(re.findall(r"(?<![\w/.*<>])[\w-]+\.(?:py|toml|txt|json)\b", text(name))) - OF_USERS
    there = {
        path.name
        for folder in ("comfy_scoft", "tests", "tools", "locales", "benchmarks")
        for path in (ROOT / folder).rglob("*.*")
    }
    assert not bare - there - {path.name for path in ROOT.iterdir()}


def test_every_room_of_the_pack_is_in_the_tree() -> None:
    tree = text("ARCHITECTURE.md").split("## The tree")[1].split("```")[1]
    rooms = {path.name for path in (ROOT / "comfy_scoft").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == rooms


def test_the_walk_has_ten_steps_and_each_names_code_of_its_file() -> None:
    walk = text("ARCHITECTURE.md").split("## A walk")[1].split("## The tree")[0]
    steps = re.findall(r"^\d+\. \*\*\w+\*\*: `(\w+)(?:\(\))?` in \[[\w/.]+\]\(([\w/.]+)\)", walk, re.MULTILINE)
    assert len(steps) == 10
    for code, file in steps:
        assert code in {getattr(node, "name", "") for node in ast.walk(ast.parse(text(file)))}, f"{file}: {code}"


def test_the_readme_leads_to_the_loop_in_one_hop_and_installs_before_it_proves() -> None:
    readme = text("README.md")
    assert "`train()` in [`comfy_scoft/training/trainer.py`](comfy_scoft/training/trainer.py)" in readme
    order = [
        "docs/before-after.png",
        "## What it is",
        "## What you need",
        "## Install",
        "## From 30 photos",
        "## Limits",
    ]
    order += ["## Two commands", "## For researchers", "### Citation"]
    assert [readme.index(part) for part in order] == sorted(readme.index(part) for part in order)
    assert len(readme.split()) < 1900


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"docs/(\w[\w-]*\.md)", text("README.md")))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")}


def settings_rows() -> dict[str, tuple[str, str, str]]:
    """docs/settings.md: setting -> what the paper, the released code and this pack have."""
    rows = [line.strip("|").split("|") for line in text("docs/settings.md").splitlines() if line.startswith("| ")]
    assert all(len(row) == 5 for row in rows)
    return {row[0].strip(): (row[1].strip(), row[2].strip(), row[3].strip()) for row in rows}


SETTINGS: dict[str, tuple[type, tuple[str, ...]]] = {
    "LoRA layers": (LoraSettings, ("targets",)),
    "LoRA rank": (LoraSettings, ("rank",)),
    "LoRA alpha": (LoraSettings, ("alpha",)),
    "optimizer": (OptimizerSettings, ("optimizer", "weight_decay")),
    "learning rate": (OptimizerSettings, ("learning_rate",)),
    "its schedule": (OptimizerSettings, ("schedule",)),
    "gradient clip": (OptimizerSettings, ("clip",)),
    "length": (TrainSettings, ("steps",)),
    "batch size": (TrainSettings, ("batch_size",)),
    "gradient accumulation": (TrainSettings, ("accumulation",)),
    "resolution, crop": (TrainSettings, ("resolution",)),
    "precision": (TrainSettings, ("precision",)),
    "seed": (TrainSettings, ("seed",)),
    "weight of L_LDM": (DiffusionLoss, ("weight",)),
    "weight of L_M": (MemorizationLoss, ("weight",)),
    "weight of L_P": (PerceptualLoss, ("weight",)),
    "weight of L_C": (ContrastiveLoss, ("weight",)),
    "form of L_C": (ContrastiveLoss, ("form",)),
    "m and λ": (ContrastiveLoss, ("margin", "negative_weight")),
    "sampler": (RolloutSettings, ("solver",)),
    "steps": (RolloutSettings, ("steps",)),
    "guidance": (RolloutSettings, ("guidance",)),
    "how often": (RolloutSettings, ("every",)),
    "recorded step": (RolloutSettings, ("gradient_step",)),
    "number": (NegativeSettings, ("per_image",)),
    "sampling of them": (NegativeSettings, ("steps", "cfg", "strength")),
}
"""Row of docs/settings.md -> the settings that it is about."""


@pytest.mark.parametrize("row", SETTINGS)
def test_the_table_of_settings_has_the_defaults_and_no_tooltip_claims_more_of_the_paper(row: str) -> None:
    owner, names = SETTINGS[row]
    paper, released, here = settings_rows()[row]
    for name in names:
        default, own = declaration(owner, name)
        plain = here.lower().replace(",", "")
        shown = str(default).lower() if isinstance(default, str) else f"{default:g}"
        forms = {shown, f"{default:.0e}".replace("e-0", "e-")} if not isinstance(default, str) else {shown}
        assert any(form in plain for form in forms), (name, here)
        if paper in ("not stated", "value lost"):
            assert not re.search(r"paper", own.help.replace("the paper does not give its value", ""), re.I), own.help
        if "Released code" in own.help:
            assert released not in ("not stated", "–")


def test_whoever_calls_settings_the_papers_does_so_of_none_that_the_paper_does_not_state() -> None:
    """AdamW, cosine, clip, accumulation, alpha, CLIP RN50 and cut captions are the released code's or ours."""
    said = r"(?:paper's|Paper:|as in the paper|as the paper did)"
    claim = re.compile(rf"(?m)^- `.*\b{said}.*$|[^.|\n]*\b{said}[^.|\n]*")
    others = re.compile(r"AdamW|cosine|\bclip\b|accumulation|\balpha\b|RN50|ViT-B|guidance|1e-4|0\.0001|tokens", re.I)
    honest = re.compile(r"where the paper says Adam|fifth layer|released|reads")
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "web" / "docs").glob("*.md")]
    pages += [ROOT / "tools" / name for name in ("workflow_notes.py", "workflow_notes_sd.py")]
    found = [
        f"{path.name}: {sentence.strip()}"
        for path in pages
        for sentence in claim.findall(path.read_text(encoding="utf-8"))
        if path.name not in ("settings.md", "CHANGELOG.md") and others.search(sentence) and not honest.search(sentence)
    ]
    assert not found


def test_the_readmes_image_has_a_row_before_and_after_and_a_block_for_each_place() -> None:
    """Composed of plain colors; the sampling itself takes a LoRA of the careful workflow."""
    cells = [(row, place) for row in readme_image.ROWS for place in readme_image.PLACES]
    images = {c: np.full((readme_image.KINDS, 64, 64, 3), 40 * (i + 1), np.uint8) for i, c in enumerate(cells)}
    page = np.asarray(readme_image.composed(images))
    for i in range(len(cells)):
        shown = (page == 40 * (i + 1)).all(-1).sum()
        assert shown >= readme_image.KINDS * (64 * readme_image.SCALE) ** 2
