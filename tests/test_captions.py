"""Generic captions: sampled the same for each picture whatever stands beside it, kept as text, edited by people."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from model_folders import blip_folder
from PIL import Image

from comfy_scoft.data import captions
from comfy_scoft.data.captions import (
    CAPTIONERS,
    CaptionSettings,
    NucleusSampler,
    attach_captions,
    edits,
    load_captioner,
)
from comfy_scoft.data.records import CultureRecord, Dataset


class Speaker:
    """A captioner by hand: it tells a picture's colour and its seed, and remembers what it was asked."""

    def __init__(self, words: str = "a {0} thing {1}", fail_at: int = -1) -> None:
        self.asked: list[int] = []
        self.words, self.fail_at = words, fail_at
        self.captioner = captions.Captioner("speaker", "v1", self.describe)

    def describe(self, images, seeds, check):
        check()
        if len(self.asked) == self.fail_at:
            raise InterruptedError
        self.asked.append(len(images))
        shades = [image.getpixel((0, 0))[0] for image in images]
        return [[self.words.format(shade, s % 1000) for s in row] for shade, row in zip(shades, seeds, strict=True)]


@pytest.fixture
def dataset(tmp_path):
    records = []
    for n in range(5):
        Image.new("RGB", (8, 8), (n * 10, 0, 0)).save(tmp_path / f"{n}.png")
        records.append(CultureRecord(tmp_path / f"{n}.png", f"ours {n}", place="nuvia", culture="Nuvian"))
    return Dataset(tmp_path, tuple(records), "five")


def generic(dataset):
    return {record.image.name: record.generic_captions for record in dataset.records}


def attach(dataset, folder, speaker=None, observe=None, **settings):
    captioner = (speaker or Speaker()).captioner
    return attach_captions(dataset, captioner, CaptionSettings(**{"per_image": 3, **settings}), folder, observe)


def test_each_picture_gets_its_captions_and_the_communitys_words_stay(dataset, tmp_path):
    found, report = attach(dataset, tmp_path / "c")
    assert all(len(words) == 3 == len(set(words)) for words in generic(found).values())
    for old, new in zip(dataset.records, found.records, strict=True):
        assert old.generic_captions == () and dataclasses.replace(new, generic_captions=()) == old
    assert report.splitlines()[0] == "5 of 5 images captioned by speaker, 5 of them newly"


def test_a_pictures_captions_do_not_depend_on_order_company_batch_or_file_names(dataset, tmp_path):
    whole = generic(attach(dataset, tmp_path / "a")[0])
    for k, batch in enumerate((1, 2, 64)):
        turned = dataset.replace(dataset.records[::-1])
        assert generic(attach(turned, tmp_path / f"b{k}", batch_size=batch)[0]) == whole
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(dataset.records[2].image.read_bytes())
    alone = dataset.replace([dataclasses.replace(dataset.records[2], image=moved)])
    assert generic(attach(alone, tmp_path / "d")[0])["elsewhere.png"] == whole["2.png"]
    assert generic(attach(dataset, tmp_path / "a", seed=1)[0]) != whole


def test_pictures_with_generic_captions_keep_them_unless_overwriting_is_asked_for(dataset, tmp_path):
    kept = dataclasses.replace(dataset.records[1], generic_captions=("a house",))
    mixed = dataset.replace([dataset.records[0], kept])
    speaker = Speaker()
    found, report = attach(mixed, tmp_path / "c", speaker)
    assert found.records[1] == kept and speaker.asked == [1]
    assert "Kept their generic captions: 1" in report
    over = attach(mixed, tmp_path / "c", speaker, overwrite=True)[0]
    assert len(over.records[1].generic_captions) == 3 and over.records[1].caption == kept.caption
    assert over.records[0] == found.records[0] and speaker.asked == [1, 1]


def test_what_is_there_is_not_sampled_again_and_an_interrupted_run_goes_on(dataset, tmp_path):
    whole = generic(attach(dataset, tmp_path / "whole")[0])
    with pytest.raises(InterruptedError):
        attach(dataset, tmp_path / "c", Speaker(fail_at=1), batch_size=2)
    speaker = Speaker()
    assert generic(attach(dataset, tmp_path / "c", speaker, batch_size=2)[0]) == whole
    assert speaker.asked == [2, 1]
    again = Speaker()
    assert generic(attach(dataset, tmp_path / "c", again)[0]) == whole and again.asked == []
    for other in ({"seed": 1}, {"per_image": 2}):
        speaker = Speaker()
        attach(dataset, tmp_path / "c", speaker, **other)
        assert speaker.asked == [5]


def test_an_edited_file_holds_from_then_on_and_tells_that_it_was_edited(dataset, tmp_path):
    folder = tmp_path / "c"
    assert edits(folder) == ""
    before = generic(attach(dataset, folder)[0])
    assert edits(folder) == ""
    (file,) = folder.glob("3-*.txt")
    head, *lines = file.read_text(encoding="utf-8").splitlines()
    assert head.startswith("#") and tuple(lines) == before["3.png"]
    file.write_text("\n".join([head, "  an   old house ", "", "a hut"]), encoding="utf-8")
    speaker = Speaker()
    after = generic(attach(dataset, folder, speaker)[0])
    assert after == {**before, "3.png": ("an old house", "a hut")} and speaker.asked == []
    first = edits(folder)
    file.write_text("a hut\n", encoding="utf-8")  # without its head it counts as edited too
    assert first and edits(folder) and edits(folder) != first
    assert generic(attach(dataset, folder)[0])["3.png"] == ("a hut",)


def test_an_emptied_file_is_sampled_again(dataset, tmp_path):
    before = generic(attach(dataset, tmp_path / "c")[0])
    for file in (tmp_path / "c").glob("0-*.txt"):
        file.write_text("", encoding="utf-8")
    assert generic(attach(dataset, tmp_path / "c")[0]) == before


def test_captions_that_name_the_place_or_the_culture_are_reported(dataset, tmp_path):
    report = attach(dataset.replace(dataset.records[:1]), tmp_path / "a", Speaker("a Nuvia house {1}"))[1]
    assert "Warning: 3 generic captions name the place or the culture" in report
    assert report.splitlines()[-1].startswith('- 0.png: "a Nuvia house') and report.endswith("names nuvia")
    assert "Warning" not in attach(dataset, tmp_path / "b", Speaker("a nuvias house"))[1]


def test_progress_is_told_after_each_picture(dataset, tmp_path):
    seen = []
    attach(dataset, tmp_path / "c", observe=lambda done, total, path: seen.append((done, total, path.name)))
    assert seen == [(n + 1, 5, f"{n}.png") for n in range(5)]


def test_faults_are_one_sentence(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"^The dataset has no records: [^.]+\.$"):
        attach(dataset.replace([]), tmp_path / "c")
    for name in ("per_image", "batch_size"):
        with pytest.raises(ValueError, match=rf"^{name} is 0, but it must be a whole number from 1 to \d+\.$"):
            CaptionSettings(**{name: 0})
    with pytest.raises(ValueError, match=r"^There is no captioner named 'x'; choose one of BLIP\.$"):
        load_captioner("x")
    with pytest.raises(ValueError, match=r"^BLIP needs a folder with its weights: put all small files and model\.saf"):
        load_captioner("BLIP")
    with pytest.raises(ValueError, match=r"^The folder 'five' holds no BLIP: put .+\.$"):
        load_captioner("BLIP", tmp_path / "five")


def chances(scores: torch.Tensor, draws: int, top_p: float) -> torch.Tensor:
    """How often each word is drawn, by many rows of the same scores."""
    draw = NucleusSampler(range(draws), end=0, top_p=top_p, min_tokens=0, check=lambda: None)
    picked = draw(torch.zeros(draws, 1, dtype=torch.long), scores.expand(draws, -1)).argmax(-1)
    return torch.bincount(picked, minlength=scores.numel()) / draws


def test_words_are_drawn_with_the_chances_of_the_nucleus():
    chance = torch.tensor([0.1, 0.45, 0.05, 0.3, 0.1])
    found = chances(chance.log(), 20_000, 0.7)  # .45 + .3 pass .7: these two words are the nucleus
    assert found[[0, 2, 4]].sum() == 0
    assert found[1] == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 20_000))
    whole = chances(chance.log(), 20_000, 1.0)
    assert torch.allclose(whole, chance, atol=4 * math.sqrt(0.25 / 20_000))
    assert chances(chance.log(), 50, 1e-6)[1] == 1  # the likeliest word is always in the nucleus


def test_a_row_draws_the_same_beside_any_others_and_no_global_seed_counts():
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    words = torch.zeros(3, 1, dtype=torch.long)
    together = NucleusSampler([5, 6, 7], 0, 0.9, 0, lambda: None)
    state = torch.get_rng_state()
    first, second = together(words, scores), together(words, scores)
    assert torch.equal(state, torch.get_rng_state()) and not torch.equal(first, second)
    alone = NucleusSampler([7], 0, 0.9, 0, lambda: None)
    assert torch.equal(alone(words[:1], scores[2:]), first[2:]) and torch.equal(
        alone(words[:1], scores[2:]), second[2:]
    )
    assert (first > -torch.inf).sum(-1).tolist() == [1, 1, 1]


def test_the_end_waits_for_the_least_number_of_words():
    draw = NucleusSampler([1], end=1, top_p=1.0, min_tokens=2, check=lambda: None)
    scores = torch.tensor([[-5.0, 5.0, -5.0]])
    picks = [int(draw(torch.zeros(1, 1 + n, dtype=torch.long), scores).argmax()) for n in range(3)]
    assert picks[0] != 1 and picks[1] != 1 and picks[2] == 1


def test_rows_that_rounding_might_turn_are_marked_and_finished_ones_are_not():
    one = torch.empty(2, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(3)).log().neg()
    tie = (-one).float().unsqueeze(0)  # with the row's own noise both words are equally good
    words = torch.tensor([[0]])
    draw = NucleusSampler([3], end=9, top_p=1.0, min_tokens=0, check=lambda: None)
    # the noise is drawn by rank of the word, so both orders are tried
    draw(words, tie)
    swapped = NucleusSampler([3], end=9, top_p=1.0, min_tokens=0, check=lambda: None)
    swapped(words, tie.flip(-1) + torch.tensor([[0.0, 5.0]]))
    assert draw.unsure.tolist() == [True] and swapped.unsure.tolist() == [False]
    edge = NucleusSampler([0] * 200, end=9, top_p=0.6, min_tokens=0, check=lambda: None)
    edge(words.expand(200, -1), torch.tensor([[0.6, 0.4]]).log().expand(200, -1))
    assert edge.unsure.all()  # whether the second word is in the nucleus hangs on a rounding, and here it often wins


@pytest.fixture(scope="module")
def small_blip(tmp_path_factory):
    """BLIP's real architecture, small, in the real form, through the real loading code."""
    return load_captioner("BLIP", blip_folder(tmp_path_factory.mktemp("models") / "blip"))


def images_of(count, size=(40, 30)):
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


def seeds(count, each=3):
    return [[100 * n + k for k in range(each)] for n in range(count)]


def test_blip_describes_each_picture_alike_in_any_company(small_blip):
    images = images_of(6)
    together = small_blip.describe(images, seeds(6), lambda: None)
    alone = [small_blip.describe([i], [s], lambda: None)[0] for i, s in zip(images, seeds(6), strict=True)]
    turned = small_blip.describe(images[::-1], seeds(6)[::-1], lambda: None)[::-1]
    assert together == alone == turned
    lengths = [len(text.split()) for row in together for text in row]
    assert min(lengths) >= captions.MIN_TOKENS and max(lengths) <= captions.MAX_TOKENS and len(set(lengths)) > 1
    assert len({text for row in together for text in row}) > 12
    assert together != small_blip.describe(images, seeds(7)[1:], lambda: None)


def test_blip_computes_a_doubtful_picture_alone(small_blip, monkeypatch):
    calls = []
    plain = captions._sample_blip

    def doubt(model, processor, images, rows, check):
        calls.append(len(images))
        found, unsure = plain(model, processor, images, rows, check)
        return found, [n == 1 for n in range(len(unsure))]

    expected = small_blip.describe(images_of(3), seeds(3), lambda: None)
    monkeypatch.setattr(captions, "_sample_blip", doubt)
    assert small_blip.describe(images_of(3), seeds(3), lambda: None) == expected and calls == [3, 1]


def test_blip_stops_at_a_word_when_it_is_told_to(small_blip):
    asked = []

    def stop():
        asked.append(None)
        if len(asked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        small_blip.describe(images_of(1), seeds(1), stop)
    assert len(asked) == 3


def test_blip_is_known_by_its_weights_and_says_which_folder_is_none(tmp_path):
    one, same, other = (blip_folder(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    identities = [load_captioner("BLIP", folder).identity for folder in (one, same, other)]
    assert identities[0] == identities[1] != identities[2]
    assert CAPTIONERS["BLIP"].fits(one)
    (one / "config.json").write_text('{"model_type": "dpt"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"^The folder 'a' holds no BLIP: "):
        load_captioner("BLIP", one)
    (same / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"^The BLIP in 'b' is incomplete, damaged or of another kind: [^.]+\.$"):
        load_captioner("BLIP", same)


@pytest.mark.long
def test_blip_base_at_its_real_size_describes_alike_in_any_company(tmp_path, monkeypatch):
    monkeypatch.setattr(captions, "MAX_TOKENS", 8)
    captioner = load_captioner("BLIP", blip_folder(tmp_path / "blip", real=True))
    images = images_of(2, (640, 427))
    together = captioner.describe(images, seeds(2), lambda: None)
    assert [len(row) for row in together] == [3, 3] and len({text for row in together for text in row}) == 6
    assert captioner.describe(images[1:], seeds(2)[1:], lambda: None) == together[1:]
