"""Step 1 of the mini world: the sheet of art, from Twemoji in npm's `emoji-datasource-twitter`.

    python tools/mini_world/build_art.py --package DIR

DIR is the unpacked package (`npm pack emoji-datasource-twitter@16.0.0`, then untar). Writes art.png and art.json
into comfy_scoft/mini_world/assets. The art is CC-BY 4.0; the NOTICE beside it says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

OUT = Path(__file__).parents[2] / "comfy_scoft" / "mini_world" / "assets"
SKIN = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"]
CELL, ACROSS = 64, 16
"""Pixels of a sprite's side; sprites in a row of the sheet."""
TABLE = {
    "architecture": "house* 1f3e0, derelict house* 1f3da-fe0f, castle* 1f3f0, hut* 1f6d6, hotel 1f3e8",
    "city": "bus 1f68c, bicycle 1f6b2, taxi 1f695, fountain* 26f2, sailboat* 26f5",
    "clothing": "hat* 1f452, dress 1f457, scarf* 1f9e3, coat 1f9e5, sneaker 1f45f",
    "dance music & visual arts": "drum* 1f941, guitar 1f3b8, violin* 1f3bb, trumpet 1f3ba, accordion* 1fa97",
    "food & drink": "bread* 1f35e, apple* 1f34e, tea* 1f375, stew* 1f372, cheese* 1f9c0, cake 1f370",
    "nature": "tree* 1f333, sunflower* 1f33b, cactus* 1f335, elephant* 1f418, fish* 1f41f, butterfly* 1f98b",
    "religion & festival": "lantern* 1f3ee, gift 1f381, balloon 1f388, kite* 1fa81",
    "utensils & tools": "hammer* 1f528, key 1f511, spoon* 1f944, basket* 1f9fa, broom* 1f9f9",
    "people & action": "farmer* A-1f33e, cook* A-1f373, student A-1f393, artist* A-1f3a8, singer A-1f3a4, "
    "teacher A-1f3eb, mechanic A-1f527, scientist A-1f52c, pilot A-2708-fe0f, judge* A-2696-fe0f, doctor A-2695-fe0f, "
    "firefighter A-1f692, clerk A-1f4bc, baby* 1f476-S, woman* 1f469-S, bearded man* 1f9d4-S, grandmother* 1f475-S, "
    "grandfather* 1f474-S, officer 1f46e-S-200d-2640-fe0f, builder 1f477-S-200d-2640-fe0f, elf* 1f9dd-S, "
    "hero 1f9b8-S-200d-2642-fe0f, queen* 1f478-S, curly woman* 1f469-S-200d-1f9b1",
}
"""By category, name and code points of each concept. *: traditional. S: a skin tone. A: an adult of that tone, with."""


def concepts() -> Iterator[tuple[str, str, bool, dict[str, str]]]:
    """(category, name, traditional, file stem by tone); tones are 1 to 5, 0 where there is none."""
    for category, entries in TABLE.items():
        for entry in entries.split(", "):
            name, code = entry.rsplit(" ", 1)
            code = code.replace("A-", "1f9d1-S-200d-")
            tones = {str(i): code.replace("S", skin) for i, skin in enumerate(SKIN, 1)} if "S" in code else {"0": code}
            yield category, name.rstrip("*"), name.endswith("*"), tones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    folder = parser.parse_args().package / "img" / "twitter" / "64"
    sprites: list[Image.Image] = []
    rows = []
    for category, name, traditional, tones in concepts():
        cells = {}
        for tone, file in tones.items():
            cells[tone] = [len(sprites) % ACROSS, len(sprites) // ACROSS]
            sprites.append(Image.open(folder / f"{file}.png").convert("RGBA").resize((CELL, CELL)))
        rows.append({"name": name, "category": category, "traditional": traditional, "sprites": cells})
    sheet = Image.new("RGBA", (ACROSS * CELL, -(-len(sprites) // ACROSS) * CELL))
    for i, sprite in enumerate(sprites):
        sheet.paste(sprite, (i % ACROSS * CELL, i // ACROSS * CELL))
    OUT.mkdir(parents=True, exist_ok=True)
    sheet.save(OUT / "art.png", optimize=True)
    (OUT / "art.json").write_text(json.dumps({"concepts": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} concepts, {len(sprites)} sprites")


if __name__ == "__main__":
    main()
