"""The notes of the workflows for models of one's own (Markdown)."""

from __future__ import annotations

import workflow_files as files

_IMAGES = """**Your pictures:** a folder `my community` in ComfyUI's `input` folder, and beside each picture a text \
file of the same name with its caption (`market.jpg`, `market.txt`). In the node below write whose pictures these are, \
and the place they show, instead of *Korean* and *Korea*. Put every fifth picture into a folder `test` inside it: it \
is not learned, and shows later what was. Who took a picture and who agreed has columns in a `metadata.csv` (see the \
help page of Load Dataset)."""

_FIRST = (
    "## Before the first run\nDownload these files, put them where the table says, and press R to refresh the menus."
)

_NEGATIVES = (files.CLIP_RN50, files.DPT, files.BLIP)
_TRAINING = (files.CLIP_RN50, files.VGG16, files.DPT, files.BLIP)
SD15 = f"{_FIRST}\n\n{files.table(files.SD15, files.SD15_DEPTH, *_TRAINING)}\n\n{_IMAGES}"
SDXL = f"{_FIRST}\n\n{files.table(files.SDXL, files.SDXL_DEPTH, *_TRAINING)}\n\n{_IMAGES}"
NEGATIVES_ONLY = f"{_FIRST}\n\n{files.table(files.SD15, files.SD15_DEPTH, *_NEGATIVES)}\n\n{_IMAGES}"
STOCK = f"{_FIRST}\n\n{files.table(files.SD15, files.SD15_DEPTH, files.DPT)}\n\n{_IMAGES}"
ONE_LORA = f"""{_FIRST}

{files.table(files.SD15)}

Put the LoRA into `models/loras`. One that you trained here is in `output/loras` and in the menu already. Read the \
card beside it (the `.md` file of the same name): whose pictures it was made of, and what its makers ask of you."""

SEE = """## What is in the pictures
**BLIP** describes each picture in plain words, five times, as somebody would who does not know the place: *a woman in \
a dress* where you wrote *a bride in hanbok*. Look through these captions: they must not name the place. \
**DPT-hybrid** sees what is near and what is far."""

NEGATIVES = """## What the model itself would have shown
For each of your pictures the base model draws the same scene five times, with its own idea of the place; the depth \
map keeps the scene. Some come out right by luck: the filter leaves out those that are too like your picture, and \
shows which. Its threshold -1 is the distance that stands out among all of them; where none does, nothing is left out \
(the paper compares by DreamSim and does not state its threshold: choose DreamSim as the eye where it is installed). \
Look before you train. This takes a while, and only once: if you stop, the next run goes on from there."""

LOSSES = """## What training looks at: the paper's four losses, with the weights of its code
**Diffusion** (0.7) learns the pictures. **Memorization** (0.3) keeps it from copying them. The other two draw a \
picture while training: **Perceptual** (0.01) compares it with yours, as VGG16 sees them; **Contrastive** (0.05) \
compares it with yours (come nearer) and with the negatives (move away), as the fifth layer of CLIP sees them. \
Contrastive alone contains a term like Perceptual's: to train with it *in place of* Perceptual, select *Look like \
them* and press Ctrl+B. Any of them can be left out so."""

_SAVED = """Stopping is safe: what was learned is kept, and *resume* goes on. The LoRA is saved in `output/loras` with \
a card: fill in its title, the words that call it up (*in Korea*), who made it, under which licence, and who agreed. \
*Korea* also stands in *preview_prompt* and in the prompts on the right. Switch *flip* off if your pictures hold \
writing or dress that must not be mirrored. To train elsewhere, with ComfyUI free for other things, switch \
*export_job* on: the node then shows the command to type."""

TRAIN_SD15 = f"""## The settings of the paper and of its code
3000 steps and rank 64 are the paper's. Four pictures a step, AdamW at 0.0001 on a cosine, and 512 pixels are those of \
the authors' code; `docs/settings.md` of this pack says of each setting whose it is. The authors took 2.5 hours on a \
V100. bf16 halves what the weights need; on a card without it choose fp32. {_SAVED}"""

TRAIN_SDXL = f"""## The same settings at XL's size
The paper trained Stable Diffusion 1.x, so nothing here is the paper's own choice for XL: the same losses, weights and \
steps, at 1024 pixels, with activations computed again instead of kept, to save memory. `docs/settings.md` of this \
pack says of each setting whose it is. {_SAVED}"""

COMPARE = """## Did it work?
Both models draw the same prompts from the same seeds. Write prompts of your own, also of things that none of your \
pictures shows, and ask people of the community which row is right: they are the judges, and no figure replaces \
them."""

KEEP = """## Keep the set
The pictures are saved with captions, depth maps and negatives under `output/scoft/datasets`. Load Dataset then lists \
the set as *my community with negatives (saved)*. To train with it, choose it in `train-cultural-lora-sd15` and bypass \
*Draw the stereotype* there (Ctrl+B): that node would put its own negatives in place of these."""

LISTS = """## Any nodes you like
**Dataset To Lists** takes the set apart, one entry for each picture: stock nodes then run once for each. Everything \
between it and **Attach Negatives** is ComfyUI's own, so use another sampler, ControlNet or style here. Only the count \
matters: the same number of negatives for each picture, in the pictures' order. The depth maps are cut to a square \
here because the latents are square, as training cuts the pictures too."""

USE = """## A LoRA is used like any other
Stock nodes only. The upper row is the base model, the lower one the same with the LoRA; prompt and seed are equal. \
The words that call it up are the trigger phrase on its card, such as *in Korea*. A strength of 1 is what was trained; \
less is a weaker correction. If faces come out overdone, try 0.8 to 0.9."""

PROMPT = """## The same words for both
Write the place into the prompt: that is where the model's idea was corrected. Other places, and prompts without one, \
may change too: draw some and look."""
