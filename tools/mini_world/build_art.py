"""Step 1 of the mini world: the sheet of art, from Twemoji in npm's `emoji-datasource-twitter`.

    python tools/mini_world/build_art.py --package DIR

DIR is the unpacked package (`npm pack emoji-datasource-twitter@16.0.0`, then untar). Writes art.png and art.json
into comfy_scoft/mini_world/assets. The art is CC-BY 4.0; the NOTICE beside it says so.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

OUT = Path(__file__).parents[2] / "comfy_scoft" / "mini_world" / "assets"
SKIN = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"]
PEOPLE = "people & action"

# name, traditional?, code point sequence without skin tone
TABLE: dict[str, list[tuple[str, bool, str]]] = {
    "architecture": [
        ("house", True, "1f3e0"),
        ("derelict house", True, "1f3da-fe0f"),
        ("castle", True, "1f3f0"),
        ("hut", True, "1f6d6"),
        ("hotel", False, "1f3e8"),
    ],
    "city": [
        ("bus", False, "1f68c"),
        ("bicycle", False, "1f6b2"),
        ("taxi", False, "1f695"),
        ("fountain", True, "26f2"),
        ("sailboat", True, "26f5"),
    ],
    "clothing": [
        ("hat", True, "1f452"),
        ("dress", False, "1f457"),
        ("scarf", True, "1f9e3"),
        ("coat", False, "1f9e5"),
        ("sneaker", False, "1f45f"),
    ],
    "dance music & visual arts": [
        ("drum", True, "1f941"),
        ("guitar", False, "1f3b8"),
        ("violin", True, "1f3bb"),
        ("trumpet", False, "1f3ba"),
        ("accordion", True, "1fa97"),
    ],
    "food & drink": [
        ("bread", True, "1f35e"),
        ("apple", True, "1f34e"),
        ("tea", True, "1f375"),
        ("stew", True, "1f372"),
        ("cheese", True, "1f9c0"),
        ("cake", False, "1f370"),
    ],
    "nature": [
        ("tree", True, "1f333"),
        ("sunflower", True, "1f33b"),
        ("cactus", True, "1f335"),
        ("elephant", True, "1f418"),
        ("fish", True, "1f41f"),
        ("butterfly", True, "1f98b"),
    ],
    "religion & festival": [
        ("lantern", True, "1f3ee"),
        ("gift", False, "1f381"),
        ("balloon", False, "1f388"),
        ("kite", True, "1fa81"),
    ],
    "utensils & tools": [
        ("hammer", True, "1f528"),
        ("key", False, "1f511"),
        ("spoon", True, "1f944"),
        ("basket", True, "1f9fa"),
        ("broom", True, "1f9f9"),
    ],
    PEOPLE: [
        ("farmer", True, "1f9d1-{s}-200d-1f33e"),
        ("cook", True, "1f9d1-{s}-200d-1f373"),
        ("student", False, "1f9d1-{s}-200d-1f393"),
        ("artist", True, "1f9d1-{s}-200d-1f3a8"),
        ("singer", False, "1f9d1-{s}-200d-1f3a4"),
        ("teacher", False, "1f9d1-{s}-200d-1f3eb"),
        ("mechanic", False, "1f9d1-{s}-200d-1f527"),
        ("scientist", False, "1f9d1-{s}-200d-1f52c"),
        ("pilot", False, "1f9d1-{s}-200d-2708-fe0f"),
        ("judge", True, "1f9d1-{s}-200d-2696-fe0f"),
        ("doctor", False, "1f9d1-{s}-200d-2695-fe0f"),
        ("firefighter", False, "1f9d1-{s}-200d-1f692"),
        ("clerk", False, "1f9d1-{s}-200d-1f4bc"),
        ("baby", True, "1f476-{s}"),
        ("woman", True, "1f469-{s}"),
        ("bearded man", True, "1f9d4-{s}"),
        ("grandmother", True, "1f475-{s}"),
        ("grandfather", True, "1f474-{s}"),
        ("officer", False, "1f46e-{s}-200d-2640-fe0f"),
        ("builder", False, "1f477-{s}-200d-2640-fe0f"),
        ("elf", True, "1f9dd-{s}"),
        ("hero", False, "1f9b8-{s}-200d-2642-fe0f"),
        ("queen", True, "1f478-{s}"),
        ("curly woman", True, "1f469-{s}-200d-1f9b1"),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    folder = parser.parse_args().package / "img" / "twitter" / "64"
    sprites: list[Image.Image] = []
    rows = []
    for category, entries in TABLE.items():
        for name, traditional, code in entries:
            tones = {str(i + 1): code.format(s=s) for i, s in enumerate(SKIN)} if "{s}" in code else {"0": code}
            cells = {}
            for tone, file in tones.items():
                cells[tone] = [len(sprites) % 16, len(sprites) // 16]
                sprites.append(Image.open(folder / f"{file}.png").convert("RGBA").resize((64, 64)))
            rows.append({"name": name, "category": category, "traditional": traditional, "sprites": cells})
    sheet = Image.new("RGBA", (16 * 64, -(-len(sprites) // 16) * 64))
    for i, sprite in enumerate(sprites):
        sheet.paste(sprite, (i % 16 * 64, i // 16 * 64))
    OUT.mkdir(parents=True, exist_ok=True)
    sheet.save(OUT / "art.png", optimize=True)
    (OUT / "art.json").write_text(json.dumps({"concepts": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} concepts, {len(sprites)} sprites")


if __name__ == "__main__":
    main()
