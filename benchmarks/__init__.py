"""Speed and memory of training, beside the released script's sequence of evaluations and ComfyUI's own Train LoRA node.

`python run.py bench`, or `python -m benchmarks` in an existing environment, writes results.json and RESULTS.md here.
What training does to images is measured elsewhere: comfy_scoft/experiments/mini_world, whose page is in mini_world/.
"""
