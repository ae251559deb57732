"""A real ComfyUI inside the test process, and tiny random models made of its own classes.

`start()` must run before anything of comfy_scoft.comfyui is imported. conftest.py puts ComfyUI's folder on the path
before the checkout's, for both have a nodes.py.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

UNETS: dict[str, dict[str, Any]] = {
    "sd1": {
        "model_channels": 32,
        "channel_mult": [1, 2, 2, 2],
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": 24,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "sd2": {
        "model_channels": 64,
        "channel_mult": [1, 2],
        "num_res_blocks": [2, 2],
        "transformer_depth": [1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": 40,
        "use_linear_in_transformer": True,
        "adm_in_channels": None,
    },
    "sdxl": {
        "model_channels": 64,
        "channel_mult": [1, 2, 2],
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": 2,
        "context_dim": 48,
        "use_linear_in_transformer": True,
        "adm_in_channels": 8 + 6 * 256,
        "num_classes": "sequential",
    },
}
UNETS["ssd"] = {
    **UNETS["sdxl"],
    "transformer_depth": [0, 0, 2, 2, 3, 3],
    "transformer_depth_output": [0, 0, 0, 1, 1, 2, 4, 3, 3],
    "transformer_depth_middle": -1,
}
UNETS["koala"] = {
    **UNETS["sdxl"],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 2],
    "transformer_depth_output": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": -2,
}
"""Tiny `unet_config`s with the structure of each family; SSD-1B and KOALA are cut-down SD XLs."""

COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "use_checkpoint": False,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "dtype": torch.float32,
}


def start() -> Any:
    """Import ComfyUI on the CPU, once; returns its `comfy` package."""
    root = os.environ.get("COMFYUI_PATH", "")
    if not root:
        raise RuntimeError("This test needs a ComfyUI: run it with `python run.py test`, or set COMFYUI_PATH to one.")
    if root not in sys.path:
        sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.controlnet
    import comfy.sd
    import utils.install_util  # noqa: F401 - early, as main.py does: ComfyUI's nodes.py hides this package later

    return comfy


def nodes_of(*modules: Any) -> list[Any]:
    """The node classes that these modules define, in order, without those that others derive from (_Name)."""
    every = [(module, name, value) for module in modules for name, value in vars(module).items() if name[0] != "_"]
    return [node for module, _, node in every if hasattr(node, "GET_SCHEMA") and node.__module__ == module.__name__]


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fill every weight (ComfyUI leaves them unset) so that signals keep their size on the way through."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            drawn = torch.randn(value.shape, generator=noise)
            if value.ndim > 1:
                value.copy_(drawn / value[0].numel() ** 0.5)
            else:
                value.copy_(0.1 * drawn + (1.0 if name.endswith("weight") else 0.0))
    return module


def tiny_model(family: str, **changes: Any) -> Any:
    """A MODEL (ModelPatcher) of random weights, made as ComfyUI's loader makes it."""
    comfy = start()
    kinds = {"sd1": "SD15", "sd2": "SD20"}
    config = getattr(comfy.supported_models, kinds.get(family, "SDXL"))({**COMMON, **UNETS[family], **changes})
    model = config.get_model({}, "", device=torch.device("cpu"))
    randomise(model.diffusion_model)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def tiny_vae() -> Any:
    """A VAE of Stable Diffusion's structure, 32 channels wide."""
    comfy = start()
    settings = {"double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32}
    settings |= {"ch_mult": [1, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    target = comfy.ldm.models.autoencoder.AutoencoderKL
    whole = randomise(target(ddconfig=settings, embed_dim=4)).state_dict()
    return comfy.sd.VAE(sd=whole, config={"params": {"ddconfig": settings, "embed_dim": 4}})


def tiny_taesd() -> Any:
    """A TAESD of random weights, with the latent scale of SD 1.x."""
    comfy = start()
    whole = randomise(comfy.taesd.taesd.TAESD(), 3).state_dict()
    whole |= {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}
    return comfy.sd.VAE(sd=whole)


def tiny_controlnet(family: str) -> Any:
    """A CONTROL_NET of random weights beside `tiny_model(family)`."""
    comfy = start()
    config = {**tiny_model(family).model.model_config.unet_config, "hint_channels": 3, "device": torch.device("cpu")}
    config.pop("out_channels")
    network = randomise(comfy.cldm.cldm.ControlNet(**config), 5)
    return comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
