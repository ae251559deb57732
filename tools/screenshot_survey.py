"""Takes the images of the survey's page that the documents show: docs/survey-phone.png and docs/survey-desktop.png.

    python tools/screenshot_survey.py

Needs Playwright for Python and a Chromium. The images in the survey are the mini world's own drawings, not a model's.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tests"):
    if str(place) not in sys.path:
        sys.path.append(str(place))

from browser import PHONE, open_page  # noqa: E402  (needs the path above)
from survey_toys import image_sets  # noqa: E402

from comfy_scoft.survey.build import SurveySettings, build, save  # noqa: E402
from comfy_scoft.survey.spec import Survey  # noqa: E402

SETTINGS = SurveySettings(
    pages=4, attention_checks=0, seed=2, quality=95, culture="Nuvia", title="How do these images show Nuvia?"
)
ORDER = (1, 2, 3, 0)
"""Of the sets in survey_toys.LOOKS, the best first: those in nuvia's own palette, then the others."""
VIEWS: dict[str, dict[str, Any]] = {
    "survey-phone": {**PHONE, "viewport": {"width": 360, "height": 780}, "device_scale_factor": 1.25},
    "survey-desktop": {"viewport": {"width": 960, "height": 716}},
}


def take(url: str, survey: Survey, name: str, view: dict[str, Any]) -> Path:
    """The second question of the first page; two images have their place, the ones in nuvia's own colors."""
    order = {page.prompt: [page.images[k] for k in ORDER] for page in survey.pages}
    with open_page(**view) as page:
        page.goto(url)
        page.check("#agree")
        page.fill("#country", "Nuvia")
        page.click(".start .main")
        best = order[page.locator(".prompt").text_content() or ""]
        for count in (3, 2):
            for image in best[:count]:
                page.click(f'[data-image="{image}"] .image')
            if count == 3:
                page.click(".onward .main")
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.wait_for_timeout(500)
        shot = page.screenshot()
    path = ROOT / "docs" / f"{name}.png"
    with Image.open(io.BytesIO(shot)) as image:
        image.convert("RGB").save(path, optimize=True)
    return path


def main() -> int:
    survey, html = build(image_sets(4), SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        url = save(survey, html, Path(folder)).as_uri()
        for name, view in VIEWS.items():
            path = take(url, survey, name, view)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
