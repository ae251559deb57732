"""Speed and memory of training, against the released script's sequence of evaluations and against ComfyUI's own node.

`python run.py bench`, or `python -m benchmarks` in an environment that is there already, writes results.json and
RESULTS.md here.
"""
