"""`python -m comfy_scoft survey`: the page from folders of images, and the report from the answers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.files import regular, write_atomically
from ..reports.plots.survey import survey_plots
from ..survey.aggregate import aggregate
from ..survey.build import LEAST, MOST, SurveySettings, build, save
from ..survey.findings import report_text
from ..survey.folders import sets_of_folders
from ..survey.report import save_report
from ..survey.responses import load_responses
from .exit_status import answered
from .options import Help, add_settings

SETTINGS = ("title", "culture", "language", "consent", "attention_checks", "seed", "image_size")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return its exit status."""
    options = parser().parse_args(arguments)
    return answered(lambda: options.run(options), "Nothing is written.")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m comfy_scoft survey",
        description="Make the page on which people of the culture rank images, and the report of their answers.",
        formatter_class=Help,
    )
    kinds = command.add_subparsers(metavar="build|report", required=True)
    page = kinds.add_parser(
        "build", help="the page, one HTML file that works offline, and its key", formatter_class=Help
    )
    page.set_defaults(run=build_page)
    page.add_argument("folders", nargs="+", metavar="LABEL=FOLDER", help="each model's name, which nobody sees who "
                      "answers, and the folder of its images")  # fmt: skip
    page.add_argument("--prompts", type=Path, help="text file with one prompt for each image, in the order of their "
                      "names, 2.png before 10.png (default: the text file beside each image)")  # fmt: skip
    page.add_argument("--out", type=Path, default=Path("surveys"), help="folder for the page and its key")
    page.add_argument("--pages", type=int, default=0, help="number of pages, each one prompt with an image of each "
                      "model; 0: all")  # fmt: skip
    add_settings(page, SurveySettings, *SETTINGS)
    answers = kinds.add_parser("report", help="the report, from a folder of answer files", formatter_class=Help)
    answers.set_defaults(run=report)
    answers.add_argument("answers", type=Path, metavar="FOLDER", help="folder with the participants' .json files")
    answers.add_argument("--keys", type=Path, help="folder with the survey's key (default: that of the answers)")
    answers.add_argument("--out", type=Path, help="folder for the report (default: that of the answers)")
    return command


def build_page(options: argparse.Namespace) -> int:
    folders = {}
    for given in options.folders:
        label, equals, folder = given.partition("=")
        if not equals or not label.strip() or label in folders:
            raise UserError(f"{given!r} is not a model and its folder: write LABEL=FOLDER, each label once.")
        folders[label] = Path(folder)
    if not LEAST <= len(folders) <= MOST:
        raise UserError(
            f"{len(folders)} model(s) cannot be ranked: give LABEL=FOLDER for each of {LEAST} to {MOST} models."
        )
    prompts = _lines(options.prompts) if options.prompts is not None else []
    sets = sets_of_folders(folders, prompts)
    chosen = {name: getattr(options, name) for name in SETTINGS}
    settings = SurveySettings(**chosen, pages=options.pages or len(sets[0].prompts))
    survey, page = build(sets, settings)
    path = save(survey, page, options.out)
    print(f"{path}\n{len(survey.pages)} pages, {len(survey.items)} questions, {len(page) / 1e6:.1f} MB")
    return 0


def report(options: argparse.Namespace) -> int:
    if not options.answers.is_dir():
        raise UserError(f"There is no folder {str(options.answers)!r}: give the one with the participants' files.")
    survey, loaded = load_responses(None, options.answers, options.keys)
    found = aggregate(survey)
    path = save_report(found, survey_plots(found), options.out or options.answers)
    scores = path.with_suffix(".csv")
    write_atomically(scores, found.scores().csv().encode())
    print(f"{loaded}\n\n{report_text(found)}\n\n{path}\n{scores}")
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in regular(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The prompts {str(path)!r} cannot be read: give a text file in UTF-8.") from error
