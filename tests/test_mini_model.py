"""The mini model's files: written by assemble.py, read by stock ComfyUI nodes and by single_file.py alike."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import comfy_inprocess as tiny
import pytest
import torch
from safetensors.torch import load_file, save_file

comfy = tiny.start()

import folder_paths  # noqa: E402  (these need a started ComfyUI)
import nodes  # noqa: E402

from comfy_scoft.comfyui import mini_model, to_diffusers  # noqa: E402
from comfy_scoft.models import single_file, state_dict_keys  # noqa: E402
from comfy_scoft.models.mini import layout  # noqa: E402
from comfy_scoft.models.text_encoder import LongCaptions, embedder, token_ids  # noqa: E402
from comfy_scoft.negatives.controlnet_pipeline import load_controlnet  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "tools" / "mini_world"))
import assemble  # noqa: E402

CAPTIONS = ("a drawing of an elf in nuvia", "an elf")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random parts of the right shapes, assembled; the folder of the three files."""
    from open_clip.model import CLIP

    torch.manual_seed(0)
    work, out = tmp_path_factory.mktemp("parts"), tmp_path_factory.mktemp("weights")
    tiny.randomise(layout.build_autoencoder(), 1).save_pretrained(work / "ae")
    unet = tiny.randomise(layout.build_unet(), 2)
    torch.save(unet.state_dict(), work / "unet.pt")
    torch.save(tiny.randomise(layout.build_controlnet(unet), 3).state_dict(), work / "control.pt")
    used = sorted({int(i) for c in (*CAPTIONS, "") for i in single_file.token_ids(c).flatten()})
    torch.save({"clip": CLIP(**layout.TOWER_SETTINGS).state_dict(), "used": used}, work / "clip.pt")
    assemble.assemble(work / "ae", work / "clip.pt", work / "unet.pt", work / "control.pt", out)
    return out


@pytest.fixture(scope="module")
def loaded(files: Path):
    """MODEL, CLIP and VAE from the stock CheckpointLoaderSimple; other tests find the shipped files by these names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "WEIGHTS", files)
        for kind in mini_model.FOLDERS:
            _, extensions = folder_paths.folder_names_and_paths[kind]
            patch.setitem(folder_paths.folder_names_and_paths, kind, ([], extensions))
        patch.setattr(folder_paths, "filename_list_cache", {})
        assert mini_model.register() and mini_model.register()
        assert sum(m.__name__ == mini_model.NAME for m in comfy.supported_models.models) == 1
        with torch.inference_mode():
            parts = nodes.CheckpointLoaderSimple().load_checkpoint(layout.CHECKPOINT)
        yield parts


@pytest.fixture(scope="module")
def base(files: Path):
    return single_file.load_base(files / "checkpoints" / layout.CHECKPOINT)


def test_files_are_small_and_pruned(files: Path) -> None:
    whole = load_file(files / "checkpoints" / layout.CHECKPOINT)
    rows = whole[assemble.EMBEDDING]
    assert len(rows) == len(whole[assemble.EMBEDDING.replace("weight", "ids")]) < 20
    assert {v.dtype for v in whole.values()} == {torch.float16, torch.float32, torch.int32}
    assert sum(p.stat().st_size for p in files.rglob("*.safetensors")) < 25e6


def test_stock_loaders_list_the_files(loaded) -> None:
    assert layout.CHECKPOINT in folder_paths.get_filename_list("checkpoints")
    assert layout.CONTROLNET in folder_paths.get_filename_list("controlnet")


def test_stock_nodes_draw_what_diffusers_draws(loaded, base) -> None:
    model, clip, vae = loaded
    steps, scale, seed = 4, 4.5, 7
    with torch.inference_mode():
        positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in (CAPTIONS[0], ""))
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        sampled = nodes.common_ksampler(model, seed, steps, scale, "euler", "normal", positive, negative, empty)[0]
        theirs = nodes.VAEDecode().decode(vae, sampled)[0]
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 8, 8), seed)
    x = noise * (1 + sigmas[0] ** 2) ** 0.5
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        t = sampling.timestep(sigma).reshape(1)
        scaled = x / (1 + sigma**2) ** 0.5
        with torch.no_grad():
            guided, plain = base.predict(torch.cat([scaled] * 2), t.repeat(2), [CAPTIONS[0], ""]).chunk(2)
        x = x + (after - sigma) * (plain + scale * (guided - plain))
    with torch.no_grad():
        ours = (base.decode(x) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    latents = sampled["samples"] * layout.LATENT_SCALE
    assert (latents - x).abs().max() < 1e-3 * x.abs().max()
    assert (theirs - ours).abs().max() < 1e-3 and ours.std() > 0.01


def test_native_sockets_and_the_single_file_give_one_model_bit_for_bit(loaded, base) -> None:
    """What lets an exported job train the same LoRA outside ComfyUI."""
    native = to_diffusers.base_model(*loaded, name="mini")
    assert native.family == base.family == "mini" and native.vae_scaling == base.vae_scaling == 1.0
    for part in ("unet", "vae"):
        ours, theirs = getattr(native, part).state_dict(), getattr(base, part).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    for caption in (*CAPTIONS, ""):
        assert torch.equal(native.embed(caption).hidden, base.embed(caption).hidden)
    noise = torch.Generator().manual_seed(3)
    pixels, z = torch.rand(1, 3, 64, 64, generator=noise) * 2 - 1, torch.randn(2, 4, 8, 8, generator=noise)
    assert torch.equal(native.schedule.alphas_cumprod, base.schedule.alphas_cumprod)
    with torch.no_grad():
        assert torch.equal(native.encode(pixels)[0], base.encode(pixels)[0])
        predicted = [b.predict(z, torch.tensor([3, 700]), CAPTIONS) for b in (native, base)]
    assert torch.equal(*predicted)


def test_parentheses_are_text_not_weights_and_long_captions_are_whole_or_cut(loaded, base) -> None:
    embed = to_diffusers.embedder(loaded[1], pooled=False)
    assert torch.equal(embed("an (elf:1.5)").hidden, base.embed("an (elf:1.5)").hidden)
    assert torch.equal(embed("elf " * 200).hidden, base.embed("elf " * 200).hidden)
    assert embed("elf " * 200).hidden.shape == (1, 3 * 77, layout.CONTEXT)
    cut = to_diffusers.embedder(loaded[1], pooled=False, long_captions=LongCaptions.FIRST)
    assert torch.equal(cut("elf " * 200).hidden, cut("elf " * 75).hidden)
    assert embed("elf").pooled is None
    with pytest.raises(ValueError, match="96 numbers per token, but the MODEL reads 768"):
        to_diffusers.embedder(loaded[1], pooled=False, width=768)("elf")


def test_stock_controlnet_loader_takes_the_depth_controlnet(loaded, base, files: Path) -> None:
    with torch.inference_mode():
        control = nodes.ControlNetLoader().load_controlnet(layout.CONTROLNET)[0]
    network = load_controlnet(files / "controlnet" / layout.CONTROLNET, base)
    assert network.config.block_out_channels == layout.CHANNELS
    assert network.config.cross_attention_dim == layout.CONTEXT
    noise = torch.Generator().manual_seed(5)
    x, context = torch.randn(1, 4, 8, 8, generator=noise), torch.randn(1, 77, layout.CONTEXT, generator=noise)
    hint, t = torch.rand(1, 3, 64, 64, generator=noise), torch.tensor([400.0])
    with torch.no_grad():
        theirs = control.control_model(x, hint, t, context)
        down, middle = network(x, t, context, hint, return_dict=False)
    for a, b in zip([*down, middle], [*theirs["output"], *theirs["middle"]], strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    latent, image = {"samples": torch.zeros(1, 4, 8, 8)}, hint.permute(0, 2, 3, 1)
    with torch.inference_mode():
        text = nodes.CLIPTextEncode().encode(loaded[1], CAPTIONS[1])[0]
        steered = nodes.ControlNetApplyAdvanced().apply_controlnet(text, text, control, image, 1.0, 0.0, 1.0)
        drawn = [
            nodes.common_ksampler(loaded[0], 1, 2, 3.0, "euler", "normal", *pair, latent)[0]["samples"]
            for pair in ((text, text), steered)
        ]
    assert not torch.allclose(*drawn)


def test_a_kohya_lora_reaches_all_56_attention_projections(loaded, caplog: pytest.LogCaptureFixture) -> None:
    unet = layout.build_unet()
    ends = ("to_q", "to_k", "to_v", "to_out.0")
    lora = {}
    for name, module in unet.named_modules():
        if ".attn" in name and name.endswith(ends):
            key = "lora_unet_" + name.replace(".", "_")
            lora[f"{key}.lora_down.weight"] = torch.ones(2, module.in_features) * 0.01
            lora[f"{key}.lora_up.weight"] = torch.ones(module.out_features, 2) * 0.01
            lora[f"{key}.alpha"] = torch.tensor(2.0)
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(loaded[0], None, lora, 1.0, 0.0)
    assert len(lora) == 3 * 56 and len(patched.patches) == 56
    assert not [r for r in caplog.records if "lora key not loaded" in r.message]
    changed = to_diffusers.unet_from_model(patched).mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    before = to_diffusers.unet_from_model(loaded[0]).mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    assert torch.allclose(changed - before, torch.full_like(before, 2e-4), atol=1e-6)


def test_text_tower_is_the_same_under_both_names(files: Path) -> None:
    from open_clip.model import CLIP

    pruned = load_file(files / "clip" / layout.TOWER)
    tower = {k: v.float() for k, v in state_dict_keys.expand_rows(pruned, "token_embedding.weight").items()}
    source = CLIP(**layout.TOWER_SETTINGS).eval()
    source.load_state_dict(tower, strict=True)
    encoder = single_file.text_encoder(layout.TEXT, state_dict_keys.clip_text_weights(tower))
    ids = torch.cat([single_file.token_ids(c) for c in (*CAPTIONS, "")])
    with torch.no_grad():
        hidden = source.token_embedding(ids) + source.positional_embedding
        expected = source.ln_final(source.transformer(hidden, attn_mask=source.attn_mask))
        assert torch.allclose(encoder(ids)[0], expected, atol=1e-5)


@pytest.mark.parametrize(("family", "layers", "normalized"), [("sd1", 2, True), ("sd2", 1, True), ("sdxl", 1, False)])
def test_each_family_reads_its_layer_of_the_text_encoder(
    family: str, layers: int, normalized: bool, files: Path
) -> None:
    """Against open_clip's own blocks, with the small tower's weights: of two layers the last, or the one before it."""
    from open_clip.model import CLIP

    weights = load_file(files / "clip" / layout.TOWER)
    tower = {k: v.float() for k, v in state_dict_keys.expand_rows(weights, "token_embedding.weight").items()}
    source = CLIP(**layout.TOWER_SETTINGS).eval()
    source.load_state_dict(tower, strict=True)
    part = single_file.configuration(family)["text"][-1] | {"names": "open_clip", "config": layout.TEXT}
    embed = embedder([part], lambda _prefix: dict(tower), "")
    with torch.no_grad():
        hidden = source.token_embedding(token_ids(CAPTIONS[0], part["pad"])) + source.positional_embedding
        for block in source.transformer.resblocks[:layers]:
            hidden = block(hidden, attn_mask=source.attn_mask)
        expected = source.ln_final(hidden) if normalized else hidden
    assert torch.allclose(embed(CAPTIONS[0]).hidden, expected, atol=1e-4)


def test_tokens_are_comfyuis(loaded) -> None:
    for caption in (*CAPTIONS, "", "An  ELF,\nin Nuvia's house!", "crème brûlée & tea", "word " * 100):
        theirs = loaded[1].tokenize(caption, disable_weights=True)["l"]
        assert single_file.token_ids(caption).tolist() == [[token for token, _ in window] for window in theirs]


def test_rows_pruned_and_expanded_come_back() -> None:
    weights = {"a.weight": torch.arange(12.0).reshape(6, 2)}
    pruned = state_dict_keys.prune_rows(weights, "a.weight", [4, 1, 4])
    assert pruned["a.weight"].tolist() == [[2.0, 3.0], [8.0, 9.0]] and pruned["a.ids"].tolist() == [1, 4]
    back = state_dict_keys.expand_rows(pruned, "a.weight", rows=6)
    assert back["a.weight"].tolist() == [[0, 0], [2, 3], [0, 0], [0, 0], [8, 9], [0, 0]] and "a.ids" not in back
    assert state_dict_keys.expand_rows(weights, "a.weight")["a.weight"] is weights["a.weight"]


def test_a_stable_diffusion_1_file_loads_by_its_names() -> None:
    """The real shapes on the meta device: every name of the format is used, and none besides."""
    comfy_config = {**tiny.COMMON, **tiny.UNETS["sd1"], "model_channels": 320, "channel_mult": [1, 2, 4, 4]}
    config = comfy.supported_models.SD15({**comfy_config, "context_dim": 768})
    source = config.get_model({}, "", device=torch.device("meta")).diffusion_model
    unet = single_file._unet("sd1", dict(source.state_dict()))
    assert unet.config.attention_head_dim == 8 and sum(p.numel() for p in unet.parameters()) == 859520964
    settings = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    settings |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        source = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=settings, embed_dim=4)
        text = comfy.sd1_clip.SDClipModel().transformer.state_dict()
    vae, scale = single_file.autoencoder(dict(source.state_dict()))
    assert scale == 1.0 and sum(p.numel() for p in vae.parameters()) == 83653863
    text.pop("text_projection.weight")
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    sizes = single_file.configuration("sd1")["text"][0]["config"]
    encoder = single_file.text_encoder({**layout.TEXT, **sizes}, text)
    assert sum(p.numel() for p in encoder.parameters()) == 123060480


def test_unreadable_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file 'none.safetensors'"):
        single_file.load_base(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="broken.safetensors is not a safetensors file"):
        single_file.load_base(broken)
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match="holds no vae and no text weights"):
        single_file.load_base(tmp_path / "half.safetensors")
    parts = ("model.diffusion_model.x", "first_stage_model.x", "cond_stage_model.transformer.x")
    save_file({k: torch.zeros(1) for k in parts}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds a model that is not supported here"):
        single_file.load_base(tmp_path / "other.safetensors")


def test_a_changed_comfyui_costs_the_mini_model_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(comfy.supported_models, "models")
    with caplog.at_level(logging.WARNING):
        assert mini_model.register() is False
    assert "mini model is not available" in caplog.text
