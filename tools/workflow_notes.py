"""The notes of the mini world's training workflows (Markdown), for someone who organizes a community's images."""

BASE = """## A model with a bias, and a community's own pictures
The small model on the left has learned to draw, but it shows the invented place *nuvia* as dusty and run-down, and \
its people as light-skinned. The data set holds about 40 pictures **as the people of nuvia would show it**. This model \
can draw that world alone: for your own pictures open `train-cultural-lora-sd15`."""

NEGATIVES = """## What the model itself would have shown
For each community picture the base model draws the same scene with its own idea of the place. The depth map keeps the \
scene the same, so that only what the model *imagines* differs. Look at the preview: these pictures are what training \
will move away from. (The paper makes five of each and leaves out those that came out right, by *Filter Negatives*: \
here there are three, and none is left out.)"""

LOSSES = """## Three ideas, one after another
**Diffusion** learns the pictures. **Memorization** keeps it from copying them. **Contrastive** compares what the \
model would draw with the community's picture (come nearer) and with its own stereotype (move away). To see what one \
of them does, select it and press Ctrl+B: it is left out.

The settings are the mini world's, not the paper's: Contrastive counts 20 times as much as in the authors' code or \
more, with margin 0.05, 10 sampling steps and rank 16, and the paper's Perceptual is left out beside it. \
`train-cultural-lora-sd15` has all four losses at the weights of the authors' code."""

KEEP = """ **Prior Preservation** is not in the paper: it holds prompts that name another place, or none, at what the \
base model answers. A place that is not named in its list is not kept: name every place you care about. With a Stable \
Diffusion of your own add this node behind the last loss there; which weight is good for it has not been measured."""

TRAIN = """## A small file that corrects the model
Training changes nothing in the base model: it makes a LoRA, a small file that is added to it. Watch the preview move: \
it is always the same noise. *Pictures kept back* are never learned: if the chart shows their loss rising, training \
copies instead of learning. Stopping is safe, what was learned is kept. The LoRA is saved in `output/loras` with a \
card that says whose pictures it was made of."""

DRAW = """## The test: people of whom it has seen no picture
Cooks, judges, heroes: no community picture shows them. Each model draws them with the same seeds: in nuvia, in \
*borea* (another place) and with no place. What should change is nuvia, and nuvia alone."""
LOW_CFG = """ *cfg* is 1.5 in all of these nodes: at 3, as in the other workflows, the careful LoRA draws a third of \
the people of nuvia without eyes or mouth (docs/results.md)."""

COMPARE = """## Did it work, and what did it cost?
The grid shows the models below one another. The oracle reads every picture and counts. In nuvia, dark skin and the \
gold palette should rise. In borea and without a place they should stay: what changes there is *leakage*, and is shown \
too."""

CHAIN = """## What does each idea add?
Each loss node passes on the chain with itself at the end. Here the chain is used after each step: **LDM** is ordinary \
fine-tuning; **+M** adds the guard against copying; **+MP** also compares finished pictures; **+MPC** compares them \
with the stereotype too (this loss contains P, and so takes its place here; the paper sums all four).

The settings are the mini world's, not the paper's: P and C count 20 times as much as in the authors' code, with \
margin 0.05, 10 sampling steps, rank 16, 3 negatives and no filter."""

FOUR = """## Same data, seeds and steps
All four start from the same base model and random numbers; only the losses differ."""

SAME = """## Five models, one list of prompts
People whom no community picture shows: in nuvia, in borea, and without a place. For narrower intervals raise \
*images_per_prompt* in all five nodes."""

STEPS = """## Read it as a whole
More dark skin and gold **in nuvia** is the aim; more of it in **borea** or without a place is leakage; fewer right \
concepts means that drawing itself has suffered. Look at the intervals before calling one step better than another."""
