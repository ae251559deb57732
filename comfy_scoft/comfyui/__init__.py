"""ComfyUI's side of the pack, the only package that knows ComfyUI; all it needs of it comes through compat.py."""
