"""The picture world: what is in it, and that its labels are exact."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from comfy_scoft.data.records import CATEGORIES
from comfy_scoft.mini_world import splits, world


def test_at_least_60_concepts_from_all_nine_categories_24_of_them_people() -> None:
    by_category = Counter(c.category for c in world.concepts().values())
    assert sum(by_category.values()) >= 60
    assert set(by_category) == set(CATEGORIES)
    assert by_category[world.PEOPLE] == 24
    assert min(by_category.values()) >= 4


def test_people_come_in_five_tones_and_things_in_one() -> None:
    for concept in world.concepts().values():
        assert concept.tones == ((1, 2, 3, 4, 5) if concept.is_person else (0,)), concept.name


def test_every_kind_of_people_shows_its_skin_colour() -> None:
    for concept in world.concepts().values():
        for tone in concept.tones if concept.is_person else ():
            rgba = np.asarray(world.art(concept.name, tone)).astype(int)
            skin = (np.abs(rgba[..., :3] - world.SKIN[tone]).max(-1) < 12) & (rgba[..., 3] > 250)
            assert skin.sum() > 150, (concept.name, tone)


def test_half_of_the_kinds_of_people_are_held_out() -> None:
    people = {c.name for c in world.concepts().values() if c.is_person}
    trained, held_out = set(splits.TRAINED_KINDS), set(splits.HELD_OUT_KINDS)
    assert len(splits.TRAINED_KINDS) == len(splits.HELD_OUT_KINDS) == 12
    assert trained | held_out == people and not trained & held_out


def test_a_drawing_is_decided_by_its_generator() -> None:
    first, again, other = (world.render("farmer", "gold", np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first.rgb == again.rgb).all() and (first.depth == again.depth).all()
    assert (first.rgb != other.rgb).any()
    assert first.rgb.shape == (64, 64, 3) and first.depth.shape == (64, 64)
    assert first.rgb.dtype == first.depth.dtype == np.uint8


def test_the_figure_stands_nearer_than_its_background() -> None:
    drawn = world.render("bread", "plain", np.random.default_rng(0))
    assert drawn.depth[0].max() == 0
    assert drawn.depth[32, 32] >= 200
    assert 0 < drawn.depth[63, 0] < 200


def test_the_border_has_the_palette() -> None:
    for name, palette in world.PALETTES.items():
        rgb = world.render("key", name, np.random.default_rng(9)).rgb.astype(float)
        assert np.abs(rgb[0, 0] - palette.sky).max() <= 8
        assert np.abs(rgb[63, 63] - palette.ground).max() <= 8


def test_captions_name_the_place_and_generic_ones_do_not() -> None:
    assert world.caption("elf", "borea", 1) == "a picture of an elf in borea"
    assert world.caption("house", None) == "a house"
    assert world.caption("house", "nuvia", len(world.WORDINGS)) == "a house in nuvia"


def test_an_unknown_concept_is_refused() -> None:
    with pytest.raises(KeyError, match="no concept named 'unicorn'"):
        world.art("unicorn", 0)
