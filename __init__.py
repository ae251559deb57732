"""SCoFT for ComfyUI: train cultural LoRAs with contrastive fine-tuning. ComfyUI loads this file; see nodes.py."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The extension that ComfyUI asks for; everything is imported here, on that call, and not before."""
    from .nodes import Extension

    return Extension()
