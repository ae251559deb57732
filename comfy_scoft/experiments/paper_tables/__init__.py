"""The paper's Tables 1, 2 and 4 on a person's own Stable Diffusion, data and GPU: one command."""
