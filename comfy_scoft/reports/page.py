"""A report of tables and images as Markdown and as one HTML file that needs nothing else, readable on a phone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """headings: the first is that of the rows' names; rows: as many cells each, as text."""

    title: str
    about: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """reading: (sentence, verdict), the verdict "" where there is none. image: the name of a file, or ""."""

    title: str
    about: str
    reading: tuple[tuple[str, str], ...] = ()
    missing: str = ""
    image: str = ""
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Content:
    """What the page says, in whatever form it is written. samples: the name of the image after the first section."""

    title: str
    words: tuple[str, ...]
    command: str
    versions: str
    sections: tuple[Section, ...]
    samples: str = "samples.png"


SAMPLES = "What the models draw of the same prompts and noise"


def markdown(page: Content, images: Mapping[str, bytes]) -> str:
    """The page as Markdown, beside the files of its images."""
    lines = [f"# {page.title}", ""]
    for text in page.words:
        lines += [text, ""]
    lines += [f"Repeat it with `{page.command}`.", ""]
    for number, section in enumerate(page.sections):
        if number == 1 and page.samples in images:
            lines += [f"![{SAMPLES}]({page.samples})", ""]
        lines += [f"## {section.title}", "", *([section.about, ""] if section.about else [])]
        lines += [section.missing, ""] if section.missing else []
        if section.image in images:
            lines += [f"![{section.title}: figures with intervals]({section.image})", ""]
        lines += [f"- {_mark(verdict)}{text}" for text, verdict in section.reading]
        for table in section.tables:
            lines += ["", f"**{table.title}.** {table.about}", ""] if table.title else [""]
            lines += ["| " + " | ".join(table.headings) + " |", "|" + "---|" * len(table.headings)]
            lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines.append("")
    return "\n".join([*lines, f"Versions: {page.versions}.", ""])


def _mark(verdict: str) -> str:
    return f"**{verdict.capitalize()}.** " if verdict else ""


STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --muted: #5c5c5c; --line: #d5d5d5; --shade: #f3f3f1; --paper: #fff;
  --better: #00664a; --worse: #a34700; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --muted: #a8a8a8; --line: #444; --shade: #242424;
  --paper: #161616; --better: #4fd0a5; --worse: #ff9f5c; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 64rem; margin: auto; padding: 1rem; }
.scroll { overflow-x: auto; }
img { box-sizing: border-box; width: 100%; min-width: 44rem; border: 1px solid var(--line); background: #fff; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; min-width: 40rem; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } caption { text-align: left; padding: .6rem 0 .3rem; color: var(--muted); }
.muted { color: var(--muted); } .better b { color: var(--better); } .worse b { color: var(--worse); }
code { background: var(--shade); padding: .1rem .3rem; overflow-wrap: anywhere; } li { margin: .3rem 0; }
"""


def html(page: Content, images: Mapping[str, bytes]) -> str:
    """The page as HTML, its images inside."""
    body = [f"<h1>{escape(page.title)}</h1>", *(f"<p>{escape(text)}</p>" for text in page.words)]
    body.append(f"<p>Repeat it with <code>{escape(page.command)}</code>.</p>")
    for number, section in enumerate(page.sections):
        body.append(_image(images, page.samples, SAMPLES) if number == 1 else "")
        body += [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.about)}</p>" if section.about else ""]
        body.append(f'<p class="muted">{escape(section.missing)}</p>' if section.missing else "")
        body.append(_image(images, section.image, f"{section.title}: figures with intervals"))
        items = [_item(text, verdict) for text, verdict in section.reading]
        body.append("<ul>" + "\n".join(items) + "</ul>" if items else "")
        body += [_table(table) for table in section.tables]
    body.append(f'<p class="muted">Versions: {escape(page.versions)}.</p>')
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(page.title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        "<body><main>\n" + "\n".join(part for part in body if part) + "\n</main></body>\n</html>\n"
    )


def _image(images: Mapping[str, bytes], name: str, words: str) -> str:
    if name not in images:
        return ""
    data = base64.b64encode(images[name]).decode()
    return f'<div class="scroll"><img alt="{escape(words)}" src="data:image/png;base64,{data}"></div>'


def _item(text: str, verdict: str) -> str:
    mark = f"<b>{escape(verdict.capitalize())}.</b> " if verdict else ""
    return f'<li class="{escape(verdict.replace(" ", "-"))}">{mark}{escape(text)}</li>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    words = f"<b>{escape(table.title)}.</b> {escape(table.about)}" if table.title else ""
    return (
        f'<div class="scroll"><table><caption>{words}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
