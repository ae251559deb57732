"""Training processes are killed at random moments, and what they leave goes on to the very same LoRA."""

from __future__ import annotations

import json
import random
from pathlib import Path

import chaos
import pytest


def tormented(tmp_path: Path, kills: int, seed: int) -> dict:
    """Trials of different kinds, in an order that the seed decides, until so many kills have hit."""
    world, found = chaos.Chaos(tmp_path), chaos.trials()
    rng = random.Random(seed)  # noqa: S311 - no secret
    rng.shuffle(found)
    for trial in found * 10:
        if (wanted := kills - chaos.totals(found)["kills"]) <= 0:
            break
        world.torment(trial, min(wanted, chaos.KILLS_A_RUN), rng)
    return chaos.totals(found)


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.long)])
def test_a_killed_run_goes_on_to_the_same_lora_bit_for_bit(kills: int, tmp_path: Path) -> None:
    sums = tormented(tmp_path, kills, seed=kills)
    assert sums["kills"] >= kills and sums["runs compared"] >= 1
    assert (sums["differences"], sums["unreadable files"], sums["faults"]) == (0, 0, [])


def test_the_comparison_sees_one_changed_number(tmp_path: Path) -> None:
    world, (trial, *_) = chaos.Chaos(tmp_path), chaos.trials()
    one, other = tmp_path / "one", tmp_path / "other"
    world.reference(trial, one)
    world.reference(trial, other)
    assert chaos.difference(one, other) == ""
    (file,) = other.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert "differs" in chaos.difference(one, other)


def test_the_record_says_what_was_done() -> None:
    record = json.loads(chaos.RECORD.read_text(encoding="utf-8"))
    assert record["kills"] >= 1000 and record["differences"] == record["unreadable files"] == 0
    assert record["kills"] == sum(sum(trial["kills"].values()) for trial in record["trials"])
    assert all(count > 0 for count in record["by way"].values())
