"""Collecting by links: what arrives, what is there twice, and what people are told."""

from __future__ import annotations

import json
import sys
import time

import pillow_heif
import pytest
from collecting import metadata, rows_of, run, table, write_csv
from hostile_server import HostileServer, answer, image_bytes
from PIL import Image

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.download import collect, read_links

pillow_heif.register_heif_opener()


@pytest.fixture
def server():
    with HostileServer() as found:
        for n in range(12):
            found.pages[f"/{n}.jpg"] = answer(image_bytes(n))
        yield found


def test_every_column_of_the_list_reaches_the_record_and_its_provenance_the_metadata(tmp_path, server):
    rows = [
        {
            "URL": server.url("/1.jpg"),
            "Caption": "a bowl, warm\nand full",
            "Category": "Food and drink",
            "Era": "Modern",
            "Place": "Nuvia",
            "Culture": "Nuvian",
            "Generic captions": "a bowl | a bowl of food",
            "Collector": "Kora",
            "License": "CC BY 4.0",
            "Consent": "written, 2026",
            "verified_by": "Limu|Sana",
            "split": "test",
        },
        {"URL": server.url("/2.jpg"), "Caption": "a street", "Category": "CITY"},
    ]
    dataset, report = run(write_csv(tmp_path / "links.csv", rows), server, culture="ours", place="here")
    bowl, street = dataset.records
    assert (bowl.caption, bowl.category, bowl.era, bowl.split) == (
        "a bowl, warm\nand full",
        "food & drink",
        "modern",
        "test",
    )
    assert (bowl.place, bowl.culture, bowl.generic_captions) == ("Nuvia", "Nuvian", ("a bowl", "a bowl of food"))
    assert (bowl.collector, bowl.licence, bowl.consent) == ("Kora", "CC BY 4.0", "written, 2026")
    assert (bowl.verified_by, bowl.source) == (("Limu", "Sana"), server.url("/1.jpg"))
    assert (street.place, street.culture, street.category, street.split) == ("here", "ours", "city", "train")
    assert bowl.image.read_bytes() == image_bytes(1)
    line = metadata(tmp_path)[0]
    assert line["url"] == server.url("/1.jpg") and len(line["sha256"]) == 64 and line["licence"] == "CC BY 4.0"
    assert abs(time.time() - time.mktime(time.strptime(line["fetched"][:19], "%Y-%m-%dT%H:%M:%S"))) < 86_400
    assert report.startswith("2 of the 2 rows of links.csv are images in the folder set\n")
    assert dataset.records == load_folder(tmp_path / "set")[0].records


def test_a_list_as_json_lines_gives_the_same_dataset_as_csv(tmp_path, server):
    rows = rows_of(server, "1.jpg", "2.jpg")
    write_csv(tmp_path / "a.csv", rows)
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "c.tsv").write_text("caption\turl\n" + "".join(f"{r['caption']}\t{r['url']}\n" for r in rows))
    (tmp_path / "d.csv").write_text("\ufefflink;text\n" + "".join(f"{r['url']};{r['caption']}\n" for r in rows))
    found = [[(k.url, k.row.text) for k in read_links(tmp_path / name)[0]] for name in ("a.csv", "b.jsonl", "c.tsv")]
    found.append([(k.url, k.row.text) for k in read_links(tmp_path / "d.csv")[0]])
    assert all(links == found[0] for links in found) and len(found[0]) == 2


def test_links_may_lead_to_every_format_with_a_signature(tmp_path, server):
    kinds = {"HEIF": ".heic", "TIFF": ".tif", "JPEG2000": ".jp2", "AVIF": ".avif", "BMP": ".bmp", "QOI": ".qoi"}
    for n, kind in enumerate(kinds):
        server.pages[f"/{kind}"] = answer(image_bytes(n, kind))
    dataset, report = run(write_csv(tmp_path / "links.csv", rows_of(server, *kinds)), server)
    assert [record.image.suffix for record in dataset.records] == list(kinds.values()), report
    again, report = run(tmp_path / "links.csv", server)
    assert again.records == dataset.records and "Fetched now: 0; there before: 6" in report


def test_a_heic_without_its_package_is_refused_with_the_command(tmp_path, server, monkeypatch):
    server.pages["/photo.heic"] = answer(image_bytes(1, "HEIF"))
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    report = run(write_csv(tmp_path / "links.csv", rows_of(server, "photo.heic", "1.jpg")), server)[1]
    assert "is a HEIC photo, which needs the package pillow-heif: run `python install.py pillow-heif`" in report


def test_the_same_file_twice_is_one_picture_and_the_report_says_so(tmp_path, server):
    server.pages["/copy.jpg"] = server.pages["/1.jpg"]
    rows = rows_of(server, "1.jpg", "copy.jpg", "2.jpg", "1.jpg")
    dataset, report = run(write_csv(tmp_path / "links.csv", rows), server)
    assert [r.captions for r in dataset.records] == [("image 1.jpg", "image copy.jpg"), ("image 2.jpg",)]
    assert server.hits["/1.jpg"] == 1
    assert "line 3 | " in report and "It is the same file as line 2. Its caption is added to that image." in report
    assert "It is the same link as line 2. Left out." in report
    assert "not list" not in report and "neither" not in report
    assert [row["result"] for row in table(tmp_path)] == ["the same", "the same"]
    dataset, report = run(tmp_path / "links.csv", server, duplicates="keep all")
    assert len(dataset) == 3 and "the same file as line 2. Kept." in report


def test_a_link_with_a_row_for_each_caption_is_one_picture_with_all_captions(tmp_path, server):
    rows = [{"url": server.url("/1.jpg"), "caption": caption} for caption in ("one", "two", "one", "three")]
    dataset, report = run(write_csv(tmp_path / "links.csv", rows), server)
    (record,) = dataset.records
    assert record.captions == ("one", "two", "three") and server.hits["/1.jpg"] == 1
    assert "1 image with 3 captions loaded, 0 left out\n" in report


def test_look_alikes_are_reported_and_left_out_only_when_asked(tmp_path, server):
    server.pages["/small.jpg"] = answer(image_bytes(1, size=(48, 36)))
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "2.jpg", "small.jpg"))
    dataset, report = run(links, server)
    assert len(dataset) == 3 and "It looks like line 2. Kept." in report
    dataset, report = run(links, server, duplicates="leave out look-alikes too")
    assert [r.caption for r in dataset.records] == ["image 1.jpg", "image 2.jpg"] and "line 2. Left out." in report


def test_dead_links_and_faulty_rows_stand_in_a_table_for_people_and_one_for_spreadsheets(tmp_path, server):
    rows = [*rows_of(server, "1.jpg", "gone.jpg"), {"url": "=cmd|'/C calc'!A0", "caption": "@evil"}]
    rows += [{"url": "", "caption": "no link"}, {"url": server.url("/2.jpg"), "caption": ""}]
    dataset, report = run(write_csv(tmp_path / "links.csv", rows), server)
    assert len(dataset) == 1
    assert report.splitlines()[:2] == [
        "1 of the 5 rows of links.csv are images in the folder set",
        "Fetched now: 1; there before: 0; dead or refused: 2; invalid rows: 2; the same as another: 0; "
        "look like another: 0",
    ]
    assert f"line 3 | {server.url('/gone.jpg')} | The host images.test has nothing at this address" in report
    assert 'line 5 | – | The row has no link: write the image\'s address in "url".' in report
    found = table(tmp_path)
    assert [row["result"] for row in found] == ["not fetched", "not fetched", "not read", "not read"]
    assert found[1]["address"] == "'=cmd|'/C calc'!A0" and found[1]["caption"] == "'@evil"


def test_a_report_without_faults_leaves_no_table_behind(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "gone.jpg"))
    run(links, server)
    server.pages["/gone.jpg"] = answer(image_bytes(11))
    _, report = run(links, server)
    assert not (tmp_path / "set/links_report.csv").exists() and "table" not in report


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "has no row with a link and a caption: name the columns url and caption"),
        ("a.csv", "url,caption\n", "has no row with a link and a caption"),
        ("a.csv", "picture,words\nhttp://x/a.jpg,b\nhttp://x/b.jpg,b\n", "first error: a.csv line 2 has no link"),
        ("a.csv", "url,caption\nhttp://x/a.jpg,b,c,d\n", "has 4 columns where the first line names 2"),
        ("a.csv", 'url,caption\nhttp://x/a.jpg,"b\n', "is not valid CSV"),
        ("a.csv", f"url,caption\nhttp://x/a.jpg,{'b' * 10_001}\n", 'more than 10,000 characters in "caption"'),
        ("a.csv", f"url,caption\nhttp://x/{'a' * 2000},b\n", 'more than 2,000 characters in "url"'),
        ("a.csv", f"url,caption,licence\nhttp://x/a,b,{'c' * 2001}\n", 'more than 2,000 characters in "licence"'),
        ("a.csv", "url,caption,era\nhttp://x/a.jpg,b,old\n", 'has the era "old"'),
        ("a.jsonl", '{"url": "http://x", "caption": 5}\n', 'something else in "caption" than a text'),
        ("a.jsonl", '["http://x"]\n', "is JSON but not an object"),
        ("a.txt", "http://x/a.jpg b\n", "not a CSV or JSON lines file"),
        ("a.csv", "url,caption\n" + "http://x/a.jpg,b\n" * 10_001, "more than 10,000 rows"),
    ],
)
def test_a_list_of_no_use_is_one_sentence(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        collect(tmp_path / name, tmp_path / "set")
    told = str(error.value)
    assert words in told and told.endswith(".") and ". " not in told and not (tmp_path / "set").exists()
