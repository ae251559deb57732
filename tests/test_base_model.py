"""The noise schedule, and the base model that every other part asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from comfy_scoft.models.mini import layout
from comfy_scoft.models.noise_schedule import NoiseSchedule
from comfy_scoft.models.stable_diffusion import BaseModel, TextEmbedding

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def small_unet(**more) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    kind = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    shape = {"block_out_channels": (32,), "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 8}
    return UNet2DConditionModel(sample_size=8, **kind, **shape, **more).eval().requires_grad_(False)


def embedding(caption: str, pooled: bool = False) -> TextEmbedding:
    noise = torch.Generator().manual_seed(len(caption))
    return TextEmbedding(torch.randn(1, 77, 8, generator=noise), torch.randn(1, 4, generator=noise) if pooled else None)


def test_schedule_by_hand() -> None:
    schedule = NoiseSchedule(torch.tensor([0.64, 0.36]), "v_prediction")
    z, noise, t = torch.tensor([[[[1.0]]], [[[2.0]]]]), torch.tensor([[[[3.0]]], [[[-1.0]]]]), torch.tensor([0, 1])
    assert torch.allclose(schedule.add_noise(z, noise, t).flatten(), torch.tensor([0.8 + 0.6 * 3, 0.6 * 2 - 0.8]))
    assert torch.allclose(schedule.target(z, noise, t).flatten(), torch.tensor([0.8 * 3 - 0.6, -0.6 - 0.8 * 2]))
    assert torch.allclose(schedule.snr(t), torch.tensor([0.64 / 0.36, 0.36 / 0.64], dtype=torch.float64))
    assert torch.equal(NoiseSchedule(torch.tensor([0.5])).target(z[:1], noise[:1], t[:1]), noise[:1])


def test_schedule_is_stable_diffusions() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    ours = NoiseSchedule.scaled_linear()
    assert ours.alphas_cumprod.dtype == torch.float64
    assert torch.allclose(ours.alphas_cumprod, theirs.double(), rtol=1e-4, atol=0)


def test_schedule_refuses_what_does_not_fit() -> None:
    schedule = NoiseSchedule.scaled_linear()
    z = torch.zeros(2, 4, 8, 8)
    with pytest.raises(ValueError, match="do not belong together"):
        schedule.add_noise(z, z[:1], torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="do not belong together"):
        schedule.target(z, z, torch.tensor([1]))
    with pytest.raises(ValueError, match="outside 0 … 999"):
        schedule.add_noise(z, z, torch.tensor([1, 1000]))
    with pytest.raises(ValueError, match="prediction type 'sample'"):
        NoiseSchedule(torch.tensor([0.5]), "sample")


def test_predict_counts_calls_and_embeds_each_caption_once() -> None:
    asked = []

    def embed(caption: str) -> TextEmbedding:
        asked.append(caption)
        return embedding(caption)

    base = BaseModel(small_unet(), layout.build_autoencoder(), NoiseSchedule.scaled_linear(), embed)
    z, t = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 500, 999])
    whole = base.predict(z, t, ["a", "", "a"])
    alone = torch.cat([base.predict(z[i : i + 1], t[i : i + 1], [c]) for i, c in enumerate(["a", "", "a"])])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert base.calls == 4 and sorted(asked) == ["", "a"]
    with pytest.raises(ValueError, match="3 latents, 3 timesteps and 1 captions"):
        base.predict(z, t, ["a"])


def test_sdxl_gets_its_pooled_text_and_sizes() -> None:
    extra = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    unet = small_unet(**extra, projection_class_embeddings_input_dim=4 + 6 * 256)
    vae, schedule = layout.build_autoencoder(), NoiseSchedule.scaled_linear()
    base = BaseModel(unet, vae, schedule, lambda caption: embedding(caption, pooled=True), family="sdxl")
    z, t = torch.zeros(1, 4, 8, 16), torch.tensor([10])
    given = embedding("hello", pooled=True)
    sizes = torch.tensor([[64.0, 128.0, 0.0, 0.0, 64.0, 128.0]])
    added = {"text_embeds": given.pooled, "time_ids": sizes}
    expected = unet(z, t, given.hidden, added_cond_kwargs=added, return_dict=False)[0]
    assert torch.allclose(base.predict(z, t, ["hello"]), expected, atol=1e-6)


def test_encode_gives_the_posteriors_scaled_moments() -> None:
    torch.manual_seed(0)
    shape = {"block_out_channels": (32, 32), "layers_per_block": 1, "latent_channels": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(**shape, **kinds).eval()
    base = BaseModel(small_unet(), vae, NoiseSchedule.scaled_linear(), embedding, vae_scaling=0.5)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    mean, std = base.encode(pixels)
    posterior = vae.encode(pixels).latent_dist
    assert torch.allclose(mean, posterior.mean * 0.5) and torch.allclose(std, posterior.std * 0.5)
    assert torch.allclose(base.decode(mean), vae.decode(posterior.mean).sample, atol=1e-5)


def test_a_tiny_autoencoder_has_no_spread_and_decoding_is_differentiable() -> None:
    torch.manual_seed(0)
    vae = layout.build_autoencoder().requires_grad_(False)
    base = BaseModel(small_unet(), vae, NoiseSchedule.scaled_linear(), embedding, family="mini", vae_scaling=1.0)
    mean, std = base.encode(torch.zeros(1, 3, 64, 64))
    assert mean.shape == (1, 4, 8, 8) and not std.any()
    leaf = mean.clone().requires_grad_()
    base.decode(leaf).sum().backward()
    assert leaf.grad.abs().sum() > 0
