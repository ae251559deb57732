"""The oracle reads what the renderer drew, whatever the batch, and says no to what it cannot read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comfy_scoft.mini_world import oracle, world


def drawings(count: int, seed: int, people: bool = False) -> tuple[torch.Tensor, list[tuple[str, int, str]]]:
    """Renderings over all concepts, tones, palettes and both ways round, and their labels."""
    rng = np.random.default_rng((77, seed))
    names = [n for n, c in world.concepts().items() if c.is_person or not people]
    labels, images = [], []
    for i in range(count):
        name = names[i % len(names)]
        tone = int(rng.choice(world.concepts()[name].tones))
        palette = str(rng.choice(list(world.PALETTES)))
        images.append(world.render(name, palette, rng, tone=tone, flip=bool(rng.random() < 0.5)).rgb)
        labels.append((name, tone, palette))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1, labels


def blurred(images: torch.Tensor, seed: int) -> torch.Tensor:
    """What a weak decoder does: blur of about a pixel and a little noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return (torch.nn.functional.avg_pool2d(padded, 3, 1) + 0.05 * noise).clamp(-1, 1)


@pytest.mark.parametrize("spoil", [lambda x: x, lambda x: blurred(x, 1)], ids=["rendered", "blurred"])
@pytest.mark.long
def test_reads_concept_palette_and_tone_of_drawings(spoil) -> None:
    images, labels = drawings(65, seed=0)
    found = oracle.classify(spoil(images))
    assert np.mean([one.concept == name for one, (name, _, _) in zip(found, labels, strict=True)]) >= 0.95
    assert np.mean([r.palette == palette for r, (_, _, palette) in zip(found, labels, strict=True)]) >= 0.95
    people = [(r, tone) for r, (_, tone, _) in zip(found, labels, strict=True) if tone]
    assert np.mean([r.tone == tone for r, tone in people]) >= 0.95
    assert np.mean([r.dark == (tone >= 3) for r, tone in people]) >= 0.95


@pytest.mark.long
def test_every_kind_of_people_is_told_from_the_others_in_every_tone() -> None:
    rng = np.random.default_rng(5)
    kinds = [(c.name, tone) for c in world.concepts().values() if c.is_person for tone in c.tones]
    rgb = np.stack([world.render(name, "gold", rng, tone=tone).rgb for name, tone in kinds])
    found = oracle.classify(torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1)
    wrong = [(kind, r) for kind, r in zip(kinds, found, strict=True) if (r.concept, r.tone) != kind]
    assert len(wrong) <= len(kinds) * 0.05, wrong


def test_the_background_does_not_decide_the_concept() -> None:
    for name, tone in (("spoon", 0), ("judge", 1), ("elephant", 0)):
        rgb = np.stack([world.render(name, p, np.random.default_rng(3), tone=tone).rgb for p in world.PALETTES])
        found = oracle.classify(torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1)
        assert [r.concept for r in found] == [name] * len(world.PALETTES)
        assert [r.palette for r in found] == list(world.PALETTES)


def test_skin_is_read_from_the_picture_not_from_the_hair_of_the_nearest_art() -> None:
    """A light woman whose skin alone is repainted dark reads as dark, though all else of her stays."""
    rgb = world.render("woman", "plain", np.random.default_rng(0), tone=1).rgb.astype(int)
    skin = np.abs(rgb - np.array(world.SKIN[1])).max(-1) < 12
    skin[:12] = skin[:, :8] = skin[:, -8:] = False
    rgb[skin] = world.SKIN[5]
    (found,) = oracle.classify(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1)
    assert (found.concept, found.tone, found.dark) == ("woman", 5, True)


def test_batch_size_and_order_do_not_matter() -> None:
    images, _ = drawings(34, seed=1)
    together = oracle.classify(images)
    assert [oracle.classify(image[None])[0] for image in images[:4]] == together[:4]
    assert oracle.classify(images.flip(0)) == together[::-1]
    assert oracle.classify(torch.empty(0, 3, 64, 64)) == []


def test_houses_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    names = ["house", "derelict house", "tree"]
    rgb = np.stack([world.render(n, "dusty", rng).rgb for n in names])
    found = oracle.classify(torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert [r.house for r in found] == ["sound", "derelict", None]


@pytest.mark.parametrize("shape", [(1, 3, 32, 64), (3, 64, 64), (1, 1, 64, 64), (2, 64, 64, 3)])
def test_other_sizes_are_refused_in_one_sentence(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^The oracle classifies images of shape \(B, 3, 64, 64\)") as caught:
        oracle.classify(torch.zeros(shape))
    assert str(shape) in str(caught.value) and "\n" not in str(caught.value)
