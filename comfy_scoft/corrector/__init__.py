"""Correction while sampling, the base model unchanged: a preference learned on noisy latents moves the latent code.

The idea is RS-Corrector's (arXiv 2312.04810): "establish an anti-stereotypical preference in the latent space and
update the latent code" at inference. No more of it was open to us than its abstract, so what stands here in detail is
our construction; docs/rs-corrector.md says which is which.
"""
