"""Words on pictures: read in order, kept once read, and laid into posts without a text."""

import json
import sys
import time
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from miko_clf.data.ocr import (
    CachedPictureReader,
    OcrSplits,
    PictureReader,
    PictureText,
    ReadingSummary,
    RecognisedLine,
    describe_ocr,
    fill_text,
    join_lines,
    open_picture_reader,
    order_lines,
    write_texts,
)
from miko_clf.data.post import Post
from miko_clf.data.readers import read_posts
from miko_clf.data.splits import PostsInMemory
from miko_clf.errors import MikoError, PostError
from tests.support.command_line import run_python, write_posts_file
from tests.support.drawn_words import draw_meme, draw_words, encode_png, normalise_words

MEME = draw_meme("ONE DOES NOT SIMPLY", "READ A PICTURE")
READ = "ONEDOESNOTSIMPLYREADAPICTURE"


@pytest.fixture(scope="module")
def reader() -> PictureReader:
    return open_picture_reader(1)


class Clock:
    """A real reader, and the number of pictures that it has read."""

    def __init__(self, reader: PictureReader) -> None:
        self.engine, self.count, self._reader = reader.engine, 0, reader

    def read(self, source: Path | bytes, until: float = float("inf")) -> PictureText:
        self.count += 1
        return self._reader.read(source, until)


def _line(
    text: str, left: float, top: float, height: float = 20, score: float = 1.0
) -> RecognisedLine:
    return RecognisedLine(text, score, left, top, left + 10 * len(text), top + height)


def _texts(*lines: RecognisedLine) -> list[str]:
    return [line.text for line in order_lines(reversed(lines))]


def test_a_caption_above_is_read_before_the_one_below(reader: PictureReader) -> None:
    found = reader.read(encode_png(MEME))
    assert normalise_words(found.text) == READ
    assert found.confidence is not None
    assert 0.9 < found.confidence <= 1


def test_columns_whose_lines_do_not_overlap_in_height_are_not_mixed(reader: PictureReader) -> None:
    words = [("LEFT ONE", 20, 20), ("LEFT TWO", 20, 70), ("RIGHT ONE", 260, 170)]
    picture = draw_words(*words, ("RIGHT TWO", 260, 220))
    found = normalise_words(reader.read(encode_png(picture)).text)
    assert found == "LEFTONELEFTTWORIGHTONERIGHTTWO"


def test_a_picture_that_its_camera_turned_is_read_upright(
    reader: PictureReader, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    MEME.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert normalise_words(reader.read(tmp_path / "turned.jpg").text) == READ


def test_a_picture_without_words_has_no_text(reader: PictureReader) -> None:
    assert reader.read(encode_png(draw_words())) == PictureText(None, None)


def test_a_picture_larger_than_the_detector_takes_is_read(reader: PictureReader) -> None:
    picture = draw_words(("ENOUGH ROOM", 300, 300), size=(4200, 2600), height=240)
    assert normalise_words(reader.read(encode_png(picture)).text) == "ENOUGHROOM"


@pytest.mark.parametrize("size", [(1, 1), (16_000, 3), (3, 16_000)])
def test_a_ribbon_takes_no_longer_than_a_picture(
    reader: PictureReader, size: tuple[int, int]
) -> None:
    started = time.process_time()
    assert reader.read(encode_png(Image.new("RGB", size))).text is None
    assert time.process_time() - started < 12  # enlarged as a picture is, half a minute


def test_a_picture_that_cannot_be_decoded_is_no_post(reader: PictureReader) -> None:
    with pytest.raises(PostError, match="not a readable"):
        reader.read(b"no picture")


def test_reading_ends_where_its_time_does(reader: PictureReader) -> None:
    with pytest.raises(TimeoutError):
        reader.read(encode_png(MEME), time.monotonic())


def test_rows_are_read_from_above_and_each_from_the_left() -> None:
    assert _texts(
        _line("first", 0, 0), _line("row", 80, 4), _line("second", 0, 30), _line("line", 90, 27)
    ) == ["first", "row", "second", "line"]


def test_a_line_that_is_as_high_as_many_draws_none_of_them_into_its_row() -> None:
    upright = _line("w", 0, 0, height=200)
    lines = [_line(text, left, top) for text, left, top in (("a", 90, 5), ("b", 30, 40))]
    assert _texts(upright, *lines, _line("c", 60, 150)) == ["a", "b", "w", "c"]


def test_a_line_counts_by_its_characters_and_a_doubtful_one_not_at_all() -> None:
    lines = [_line("abcdef", 0, 0, score=1.0), _line("xy", 0, 30, score=0.8)]
    doubtful = _line("?!?!", 0, 60, score=0.79)
    assert join_lines([*lines, doubtful]) == PictureText("abcdef\nxy", 0.95)
    assert join_lines([doubtful]) == PictureText(None, None)
    assert join_lines([doubtful], 0.5) == PictureText("?!?!", 0.79)


def test_a_given_text_stays_and_an_absent_one_says_where_it_is_from(reader: PictureReader) -> None:
    given = Post(id="a", text="given", image=encode_png(MEME))
    assert fill_text(given, reader) is given
    found = fill_text(given.model_copy(update={"text": None}), reader)
    assert normalise_words(found.text) == READ
    assert found.text_source == "ocr"
    assert found.text_confidence is not None
    blank = Post(id="b", image=encode_png(draw_words()))
    assert fill_text(blank, reader) is blank


def test_posts_whose_text_was_not_read_are_written_as_ever() -> None:
    assert not {"text_source", "text_confidence"} & Post(id="a", text="x").model_dump().keys()


def test_another_source_of_a_text_is_refused_in_one_line(tmp_path: Path) -> None:
    row = {"id": "a", "text": "x", "text_source": "tesseract"}
    with pytest.raises(PostError, match=r":1: text_source must be ocr, or absent, not 'tess"):
        list(read_posts(write_posts_file(tmp_path / "posts.jsonl", row)))
    row |= {"text_source": "ocr", "text_confidence": 1.5}
    with pytest.raises(PostError, match=r"text_confidence must be a number from 0 to 1, not 1\.5"):
        list(read_posts(write_posts_file(tmp_path / "posts.jsonl", row)))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "miko_clf.data.ocr_engine", raising=False)
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(MikoError, match=r"needs rapidocr: pip install 'miko-clf\[ocr,cpu\]'$"):
        open_picture_reader()


def test_reading_reaches_no_torch_and_no_network() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*given): raise AssertionError(given)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from miko_clf.data.ocr import open_picture_reader\n"
        "from tests.support.drawn_words import draw_meme, encode_png\n"
        "print(open_picture_reader(1).read(encode_png(draw_meme('HELLO', 'THERE'))).text)\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'paddle')))\n"
    )
    ended = run_python("-W", "error", "-c", code)
    assert (ended.code, normalise_words(ended.out), ended.err) == (0, "HELLOTHERE", "")


def test_a_picture_is_read_once_whatever_it_is_called(
    reader: PictureReader, tmp_path: Path
) -> None:
    file, counted = tmp_path / "cache" / "ocr.jsonl", Clock(reader)
    (tmp_path / "same.png").write_bytes(encode_png(MEME))
    first = CachedPictureReader(counted, file)
    assert first.read(encode_png(MEME)) == first.read(tmp_path / "same.png")
    again = CachedPictureReader(counted, file)
    assert normalise_words(again.read(encode_png(MEME)).text) == READ
    assert (counted.count, first.num_read, again.num_read, again.num_known) == (1, 1, 0, 1)


def test_a_line_that_was_cut_off_or_is_of_another_engine_is_read_again(
    reader: PictureReader, tmp_path: Path
) -> None:
    file = tmp_path / "ocr.jsonl"
    words = CachedPictureReader(reader, file)
    words.read(encode_png(MEME))
    words.read(encode_png(draw_words(("HELLO", 20, 20))))
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    counted = Clock(reader)
    mended = CachedPictureReader(counted, file)
    assert mended.num_known == 1
    mended.read(encode_png(draw_words(("HELLO", 20, 20))))
    assert counted.count == 1
    assert CachedPictureReader(reader, file).num_known == 2
    counted.engine = "another"
    assert CachedPictureReader(counted, file).num_known == 0


def _write_folder(folder: Path) -> Path:
    """Write posts: one whose text is on its picture, one with none there, one with its own."""
    folder.mkdir()
    MEME.save(folder / "meme.png")
    draw_words().save(folder / "blank.png")
    return write_posts_file(
        folder / "posts.jsonl",
        {"id": "a", "image": "meme.png", "label": "x", "taken_by": "me"},
        {"id": "b", "image": "blank.png", "text": " ", "label": "y"},
        {"id": "c", "image": "meme.png", "text": "its own"},
    )


def test_a_file_keeps_every_key_and_its_images_are_found_from_where_it_stands(
    reader: PictureReader, tmp_path: Path
) -> None:
    posts = _write_folder(tmp_path / "in")
    out = tmp_path / "out" / "read.jsonl"
    summary = write_texts(posts, out, reader)
    assert summary[:4] == (1, 1, 1, 0)
    assert summary.milliseconds is not None
    first, second, third = map(json.loads, out.read_text().splitlines())
    assert normalise_words(first.pop("text")) == READ
    assert 0.9 < first.pop("text_confidence") <= 1
    wanted = {"id": "a", "image": "../in/meme.png", "label": "x", "taken_by": "me"}
    assert first == {**wanted, "text_source": "ocr"}
    assert second == {"id": "b", "image": "../in/blank.png", "text": " ", "label": "y"}
    assert third == {"id": "c", "image": "../in/meme.png", "text": "its own"}
    assert [post.text_source for post in read_posts(out)] == ["ocr", None, None]
    assert [path.name for path in out.parent.iterdir()] == ["read.jsonl"]


def test_a_run_that_was_stopped_goes_on_where_it_was(
    reader: PictureReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts, out = _write_folder(tmp_path / "in"), tmp_path / "in" / "read.jsonl"
    journal = out.with_name("read.jsonl.journal")
    CachedPictureReader(reader, journal).read(tmp_path / "in" / "meme.png")
    counted = Clock(reader)
    assert write_texts(posts, out, counted)[:4] == (1, 1, 1, 0)
    assert counted.count == 1
    assert "going on after 1 pictures" in capsys.readouterr().err
    assert not journal.exists()


def test_a_bad_picture_ends_the_run_or_is_listed(reader: PictureReader, tmp_path: Path) -> None:
    posts = _write_folder(tmp_path / "in")
    (tmp_path / "in" / "blank.png").write_bytes(b"no picture")
    out = tmp_path / "read.jsonl"
    with pytest.raises(PostError, match=r"posts\.jsonl:2: image .*blank\.png"):
        write_texts(posts, out, reader)
    assert not out.exists()
    assert write_texts(posts, out, reader, skip_bad=True)[:4] == (1, 0, 1, 1)
    assert [post.id for post in read_posts(out)] == ["a", "c"]
    (entry,) = json.loads(out.with_name("read.jsonl.skipped.json").read_text())
    assert entry["where"].endswith("posts.jsonl:2")


@pytest.mark.parametrize("name", ["read.csv", "posts.jsonl", "."])
def test_a_place_that_cannot_hold_the_posts_is_refused_before_work(
    reader: PictureReader, tmp_path: Path, name: str
) -> None:
    posts = _write_folder(tmp_path / "in")
    with pytest.raises(MikoError, match=r"^cannot write "):
        write_texts(posts, tmp_path / "in" / name, reader)


def test_nothing_is_read_where_every_text_is_given(reader: PictureReader, tmp_path: Path) -> None:
    posts = write_posts_file(tmp_path / "posts.jsonl", {"id": "a", "text": "x"})
    found = write_texts(posts, tmp_path / "read.jsonl", reader)
    assert found == ReadingSummary(0, 0, 1, 0, None)


def test_splits_are_read_with_the_texts_of_their_pictures(
    reader: PictureReader, capsys: pytest.CaptureFixture[str]
) -> None:
    posts = [Post(id="a", image=encode_png(MEME)), Post(id="b", text="its own")]
    plain = PostsInMemory(Path("here"), {"train": posts, "val": posts[1:]})
    data = OcrSplits(plain, reader)
    assert [normalise_words(post.text) for post in data.read("train")] == [READ, "ITSOWN"]
    assert data.fingerprint("train") != plain.fingerprint("train")
    assert data.fingerprint("val") == plain.fingerprint("val")
    assert (data.path, data.splits, data.has("test")) == (plain.path, plain.splits, False)
    assert "train: of 1 posts without text 1 have one by OCR" in capsys.readouterr().err
    read = {"train": data.read("train"), "val": posts[1:]}
    wanted = {"engine": reader.engine, "texts": {"train": 1, "val": 0}}
    assert describe_ocr(data, read) == {"ocr": wanted}
    assert describe_ocr(plain, read) == {"ocr": {**wanted, "engine": None}}
    assert describe_ocr(data, {"val": posts[1:]}) == {}
