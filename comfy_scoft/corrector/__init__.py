"""RS-Corrector: correction while sampling with the base model unchanged, by a preference learned on noisy latents.

The idea, an anti-stereotypical preference in latent space that updates the latent code at inference, is from
RS-Corrector (arXiv 2312.04810). Only its abstract was available to us, so the details are our own construction;
docs/rs-corrector.md says which is which.
"""
