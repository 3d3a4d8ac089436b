"""Posts as people really have them: a table of odd inputs, and what is to become of each.

Run as a program it prints the table with what `data`, `score` and the server said of each.
"""

import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from starlette.testclient import TestClient

import miko_clf
from miko_clf.data.demo.world import write_world
from miko_clf.data.readers import TABLE_SUFFIXES
from miko_clf.errors import MikoError
from miko_clf.recipe import schema as recipes
from miko_clf.serve.app import make_app
from miko_clf.serve.offline import Scorer, load
from tests.support.command_line import run_command
from tests.support.small_recipes import SMALL_KEYS

Files = Mapping[str, bytes]
ODD = "odd"  # the id of the post that is odd, beside others that are not


class OddInput(NamedTuple):
    """One odd input: `files` to be written, and `table` among them, or the folder where it is none.

    Where it is read `reads` holds fields of the post whose id is `post`, `size` is that of its
    picture, and `says` are parts of a remark; else they are parts of the line that refuses it. A
    mended one is refused, but read with the remark `mends` where bad posts are passed over.
    `payload` is what of it is sent to a server, which answers with `status`.
    """

    name: str
    files: Callable[[], Files]
    table: str = ""
    reads: Mapping[str, Any] | None = None
    says: tuple[str, ...] = ()
    mends: str = ""
    size: tuple[int, int] | None = None
    label_map: str | None = None
    post: str = ODD
    payload: Mapping[str, Any] | None = None
    status: int = 200

    def write(self, folder: Path) -> Path:
        """Write the files, and return what is given to a command."""
        for name, content in self.files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / self.table if self.table else folder


def _draw(width: int = 64, height: int = 48) -> Image.Image:
    row, column = np.mgrid[0:height, 0:width]
    picture = np.stack((column * 4, row * 5, (row + column) % 2 * 200), axis=-1)
    return Image.fromarray(picture.astype(np.uint8))


def encode_picture(kind: str = "JPEG", picture: Image.Image | None = None, **options: Any) -> bytes:
    """Return a picture encoded."""
    file = io.BytesIO()
    (picture or _draw()).save(file, kind, **options)
    return file.getvalue()


def _make_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _add_chunk(name: bytes, body: bytes) -> bytes:
    """Return a PNG with one more chunk before its pixels."""
    png = encode_picture("PNG")
    return png[:33] + _make_chunk(name, body) + png[33:]


def _encode_heic() -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(_draw()).save(file, format="HEIF", quality=90)
    return file.getvalue()


def _line(**cells: Any) -> str:
    return json.dumps({"id": ODD, "text": "so it goes", **cells}, ensure_ascii=False)


def _jsonl(name: str, *lines: str, **expected: Any) -> OddInput:
    text = "\n".join(['{"id": "plain", "text": "all is well", "label": "a"}', *lines]) + "\n"
    return OddInput(name, lambda: {"posts.jsonl": text.encode()}, "posts.jsonl", **expected)


def _csv(name: str, text: str, encoding: str = "utf-8", **expected: Any) -> OddInput:
    return OddInput(name, lambda: {"posts.csv": text.encode(encoding)}, "posts.csv", **expected)


def _parquet(
    name: str,
    columns: Mapping[str, Any],
    features: Mapping[str, Any] | None = None,
    **expected: Any,
) -> OddInput:
    def make() -> Files:
        table = pa.table(dict(columns))
        if features is not None:
            told = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": told})
        file = io.BytesIO()
        pq.write_table(table, file)
        return {"posts.parquet": file.getvalue()}

    return OddInput(name, make, "posts.parquet", **expected)


def _picture(
    name: str, make: Callable[[], bytes], file: str = "odd.jpg", **expected: Any
) -> OddInput:
    """Return the case of a post whose picture is a file of these bytes."""
    lines = f'{{"id": "plain", "text": "well"}}\n{_line(image=file)}\n'
    return OddInput(
        name, lambda: {"posts.jsonl": lines.encode(), file: make()}, "posts.jsonl",
        payload={"bytes": True}, **expected,
    )  # fmt: skip


def _folder(name: str, files: Callable[[], Files], **expected: Any) -> OddInput:
    return OddInput(name, files, **expected)


_TEXTS = {"text": "so it goes"}
_IDS = [ODD, "plain"]
_CLASSES = {"names": ["harmless", "harmful"], "_type": "ClassLabel"}
_LONG = "word " * 40_000
_JPEG, _URL = encode_picture, "https://example.org/" + "a" * 400 + ".jpg"


def _label(value: str, spelt: str, *says: str) -> OddInput:
    """Return the case of a label as JSON writes it."""
    line = f'{{"id": "{ODD}", "text": "so it goes", "label": {value}}}'
    return _jsonl(f"label {value} in JSON", line, reads={"label": spelt}, says=says)


LABELS = [
    _label("1", "1"),
    _label("0", "0"),
    _label("1.0", "1", "label 1.0 was read as '1'"),
    _label('"1.0"', "1", "label '1.0' was read as '1'"),
    _label("true", "true"),
    _label('"True"', "true", "label 'True' was read as 'true'"),
    _label('"harmful "', "harmful", "label 'harmful ' was read as 'harmful'"),
    _label("-1", "-1", "labelled '-1'", "--label-map=-1= leaves them out"),
    _jsonl("label 0.5", _line(label=0.5), says=(":2: label must be a class name", "not 0.5")),
    _jsonl("label 'nan'", _line(label="nan"), says=(":2: label is 'nan'; leave the cell empty",)),
    _jsonl("label of blanks", _line(label="  "), says=(":2: label '  ' is empty",)),
    _jsonl("label null", _line(label=None), reads={"label": None}),
    _jsonl("labels [1, 0]", _line(label=[1, 0]), reads={"label": ("1", "0")}),
    _jsonl(
        "labels that differ in case", _line(label="Not harmful"),
        '{"id": "b", "text": "x", "label": "not_harmful"}', reads={"label": "Not harmful"},
        says=("'Not harmful' (1) and 'not_harmful' (1) differ in case", "--label-map fold"),
    ),
    _jsonl(
        "labels folded", _line(label="Not harmful"), reads={"label": "not_harmful"},
        label_map="fold",
    ),
    _jsonl(
        "posts labelled -1 left out", _line(label="b"), '{"id": "c", "text": "x", "label": -1}',
        reads={"label": "b"}, says=("posts left out by the label map: 1",), label_map="-1=",
    ),
    _csv("0 and 1 in CSV", f"id,text,label\n{ODD},so it goes,0\nb,x,1\n", reads={"label": "0"}),
    _csv(
        "0.0 in CSV, as pandas writes it", f"id,text,label\n{ODD},so it goes,0.0\n",
        reads={"label": "0"}, says=("label '0.0' was read as '0'",),
    ),
    _csv(
        "TRUE in CSV, as Excel writes it", f"id,text,label\n{ODD},so it goes,TRUE\n",
        reads={"label": "true"}, says=("label 'TRUE' was read as 'true'",),
    ),
    _parquet(
        "ClassLabel of the hub", {"id": _IDS, "text": ["so it goes", "x"], "label": [1, 0]},
        {"label": _CLASSES}, reads={"label": "harmful"},
    ),
    _parquet(
        "ClassLabel -1", {"id": _IDS, "text": ["so it goes", "x"], "label": [-1, 0]},
        {"label": _CLASSES}, reads={"label": None},
    ),
    _parquet(
        "ClassLabel out of range", {"id": _IDS, "text": ["so it goes", "x"], "label": [7, 0]},
        {"label": _CLASSES}, says=("row 1: label: 7 is none of the 2 classes",),
    ),
    _parquet(
        "list of ClassLabel",
        {"id": _IDS, "text": ["so it goes", "x"], "label": [[1, 0], []]},
        {"label": {"feature": _CLASSES, "_type": "List"}},
        reads={"label": ("harmful", "harmless")},
    ),
    _parquet(
        "categories of pandas",
        {"id": _IDS, "text": ["so it goes", "x"],
         "label": pa.array(["yes", "no"]).dictionary_encode()},
        reads={"label": "yes"},
    ),
    _parquet(
        "booleans in Parquet", {"id": _IDS, "text": ["so it goes", "x"], "label": [True, False]},
        reads={"label": "true"},
    ),
]  # fmt: skip

IDS = [
    _jsonl("id 5 in JSON", '{"id": 5, "text": "x"}', reads={"text": "x"}, post="5"),
    _jsonl(
        "id 007", '{"id": "007", "text": "x"}', reads={"text": "x"}, post="007",
        says=("id '007' keeps its leading zeros, so '7' is another",),
    ),
    _jsonl("id used twice, as 5 and '5'", '{"id": 5, "text": "x"}', '{"id": "5", "text": "y"}',
           says=(":3: id '5' was already used at", ":2")),
    _parquet("ids of integers", {"id": [41, 42], "text": ["x", "y"]}, reads={"text": "y"},
             post="42"),
    _parquet(
        "no id, in Parquet of the hub", {"text": ["x", "y"], "label": [0, 1]}, {"label": _CLASSES},
        reads={"label": "harmful"}, post="posts-2",
    ),
    _jsonl("an id of 500 characters, twice", *[f'{{"id": "{"i" * 500}", "text": "x"}}'] * 2,
           says=(":3: id 'iii", "was already used")),
]  # fmt: skip

_EXCEL = f"id;text;label\n{ODD};so, it goes;1\nb;x;0\n"
TABLES = [
    _csv("semicolons", _EXCEL, reads={"text": "so, it goes", "label": "1"}),
    _csv("sep=; of Excel", "sep=;\n" + _EXCEL, reads={"text": "so, it goes"}),
    _csv("tabs", _EXCEL.replace(";", "\t"), reads={"text": "so, it goes"}),
    _csv("UTF-16, as Excel saves Unicode text", _EXCEL.replace(";", "\t"), "utf-16",
         reads={"text": "so, it goes", "label": "1"}),
    _csv("UTF-16 without a mark", _EXCEL, "utf-16-le", reads={"text": "so, it goes"}),
    _csv("UTF-8 with a mark", _EXCEL, "utf-8-sig", reads={"text": "so, it goes"}),
    _csv("Windows-1252", f"id,text\n{ODD},“naïve”\nb,x\n", "cp1252", reads={"text": "“naïve”"},
         says=("read as Windows-1252, which is assumed",)),
    OddInput("one bad byte in UTF-8", lambda: {"posts.csv": f"id,text\nb,é\n{ODD},".encode()
             + b"\xe9\nc,\xc3\xa9\n"}, "posts.csv", says=(":3: byte", "of line 3 is not UTF-8")),
    _csv("a carriage return in quotes", f'id,text\n{ODD},"so\rit\ngoes"\n',
         reads={"text": "so\rit\ngoes"}),
    _csv("carriage returns for lines", f"id,text\r{ODD},so it goes\rb,x\r", reads=_TEXTS),
    _csv("CR LF for lines", f"id,text\r\n{ODD},so it goes\r\n", reads=_TEXTS),
    _csv("a cell of 200,000 characters", f"id,text\n{ODD},{_LONG}\n", reads={"text": _LONG}),
    _jsonl("a text of 200,000 characters", _line(text=_LONG), reads={"text": _LONG}),
    _csv("blank lines and rows in CSV", f"id,text\n\n{ODD},so it goes\n,\n\n", reads=_TEXTS),
    _jsonl("blank lines in JSONL", "", "  ", _line(), "", "", reads=_TEXTS),
    _csv("a quote that is not closed", f'id,text\nb,x\n{ODD},"so it goes\n',
         says=(":3: not valid CSV: a quote is not closed",)),
    _csv("a row too short", f"id,text,label\nb,x,y\n{ODD},x\n", says=(":3: 2 cells under 3",)),
    _parquet("large strings", {"id": pa.array(_IDS, pa.large_string()),
             "text": pa.array(["so it goes", "x"], pa.large_string())}, reads=_TEXTS),
    _parquet("a list of one image", {"id": _IDS, "text": ["so it goes", "x"],
             "image": [[{"bytes": _JPEG(), "path": None}], None]}, reads=_TEXTS, size=(64, 48)),
    _parquet("a list of two images", {"id": ["plain", ODD], "text": ["x", "y"],
             "image": [None, [_JPEG(), _JPEG()]]}, says=("row 2: image is a list of 2",)),
    _parquet("an image of nulls", {"id": _IDS, "text": ["so it goes", "x"],
             "image": [{"bytes": None, "path": None}, {"bytes": _JPEG(), "path": "a.jpg"}]},
             reads={"image": None}),
    OddInput("a workbook", lambda: {"posts.xlsx": b"PK\3\4"}, "posts.xlsx",
             says=("unknown kind '.xlsx'", "save it as CSV UTF-8")),
    OddInput("a .tsv", lambda: {"posts.tsv": b"id\ttext\na\tx\n"}, "posts.tsv",
             says=("unknown kind '.tsv'", "rename it to .csv")),
    _folder("shards of the hub", lambda: {
        f"data/train-0000{part}-of-00002.parquet": _write_shard(part) for part in (0, 1)},
        reads={"label": "harmful"}, post="train-00001-of-00002-1"),
]  # fmt: skip


def _write_shard(part: int) -> bytes:
    table = pa.table({"text": [f"text {part}"], "label": [part]})
    file = io.BytesIO()
    told = json.dumps({"info": {"features": {"label": _CLASSES}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": told}), file)
    return file.getvalue()


def _word(word: str) -> list[OddInput]:
    says = (f"text {word!r} was read as that word",)
    csv = _csv(f"the text {word} in CSV", f"id,text\n{ODD},{word}\n", reads={"text": word},
               says=says)  # fmt: skip
    line = _jsonl(f"the text {word} in JSON", _line(text=word), reads={"text": word}, says=says,
                  payload={"text": word})  # fmt: skip
    return [csv, line]


_HALF = '{"id": "odd", "text": "so \\ud83d"}'
TEXTS = [
    *(case for word in ("nan", "NA", "None", "null") for case in _word(word)),
    _jsonl("half of a surrogate pair", _HALF, reads={"text": "so \ufffd"},
           says=(":2: half of a surrogate pair",), mends="was read as U+FFFD"),
    _jsonl("a null character", _line(text="a\0b"), reads={"text": "a\0b"},
           payload={"text": "a\0b"}),
    _jsonl("a text of blanks alone", _line(text=" \t"), says=(":2: neither text nor image",),
           payload={"text": " \t"}, status=422),
    _jsonl("a number for a text", _line(text=5), says=(":2: text must be a string, not 5",),
           payload={"text": 5}, status=422),
]  # fmt: skip

LITTER = {
    "train/.DS_Store": b"x", "train/a/._1.jpg": b"x", "train/a/Thumbs.db": b"x",
    "train/b/desktop.ini": b"x", "train/__MACOSX/._1.jpg": b"x", "__MACOSX/train/a/1.jpg": b"x",
    "train/a/.DS_Store": b"x",
}  # fmt: skip
FOLDERS = [
    _folder("class folders with what systems leave",
            lambda: {"train/a/1.jpg": _JPEG(), "train/b/2.jpg": _JPEG(), **LITTER},
            reads={"label": "a"}, post="train/a/1.jpg"),
    _folder("one table beside its shadow of macOS",
            lambda: {"posts.jsonl": _line().encode(), "._posts.jsonl": b"\0\5\x16\7"},
            reads=_TEXTS),
    _folder("a page among pictures",
            lambda: {"train/a/1.jpg": _JPEG(), "train/b/2.jpg": b"<html>gone</html>"},
            says=("train/b/2.jpg", "it is HTML", "fetch it again")),
]  # fmt: skip

_BASE64 = base64.b64encode(_JPEG()).decode()
PICTURES = [
    _picture("JPEG without an end marker", lambda: _JPEG()[:-2], reads=_TEXTS, size=(64, 48),
             says=("a JPEG without an end marker",)),
    _picture("JPEG whose foot is lost", lambda: _JPEG()[: int(len(_JPEG()) * 0.75)], reads=_TEXTS,
             size=(64, 48), says=("of its 48 rows are lost, and grey",)),
    _picture("JPEG most of which is lost", lambda: _JPEG()[: int(len(_JPEG()) * 0.55)],
             says=(":2: image", "it is JPEG, damaged or cut off"), status=422),
    _picture("JPEG with bytes after its end", lambda: _JPEG() + bytes(99), reads=_TEXTS,
             size=(64, 48)),
    _picture("PNG with a large text", lambda: _add_chunk(
             b"zTXt", b"note\0\0" + zlib.compress(bytes(3_000_000))), reads=_TEXTS, size=(64, 48),
             says=("too large a text or colour profile",)),
    _picture("PNG with a large colour profile", lambda: _add_chunk(
             b"iCCP", b"icc\0\0" + zlib.compress(bytes(3_000_000))), reads=_TEXTS, size=(64, 48),
             says=("too large a text or colour profile",)),
    _picture("PNG cut off", lambda: encode_picture("PNG")[:-60],
             says=(":2: image", "it is PNG, damaged or cut off"), status=422),
    _picture("MPO, as phones save two views", lambda: encode_picture(
             "MPO", save_all=True, append_images=[_draw()]), reads=_TEXTS, size=(64, 48)),
    _picture("JPEG turned by EXIF", lambda: _encode_turned(), reads=_TEXTS, size=(48, 64)),
    _picture("JPEG in CMYK", lambda: encode_picture("JPEG", _draw().convert("CMYK")), reads=_TEXTS,
             size=(64, 48)),
    _picture("a PNG called .jpg", lambda: encode_picture("PNG"), reads=_TEXTS, size=(64, 48)),
    _picture("AVIF", lambda: encode_picture("AVIF"), "odd.avif", reads=_TEXTS, size=(64, 48)),
    _picture("HEIC", _encode_heic, "odd.HEIC", reads=_TEXTS, size=(64, 48)),
    _picture("BMP", lambda: encode_picture("BMP"), says=(":2: image", "it is BMP; convert it"),
             status=415),
    _picture("TIFF", lambda: encode_picture("TIFF"), says=(":2: image", "it is TIFF; convert it"),
             status=415),
    _picture("SVG", lambda: b'<?xml version="1.0"?><svg xmlns="x"/>',
             says=(":2: image", "it is SVG; draw it"), status=415),
    _picture("HTML", lambda: b"<!DOCTYPE html><title>404</title>",
             says=(":2: image", "it is HTML; a page came"), status=415),
    _picture("PDF", lambda: b"%PDF-1.7 and so on", says=(":2: image", "it is PDF"), status=415),
    _picture("a video", lambda: b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(40),
             says=(":2: image", "it is MP4; take a frame"), status=415),
    _picture("a pointer of Git LFS", lambda: b"version https://git-lfs.github.com/spec/v1\n",
             says=(":2: image", "git lfs pull"), status=415),
    _picture("an empty file", lambda: b"", says=(":2: image", "it is empty; fetch it again"),
             status=415),
    _picture("no known bytes", lambda: b"hello", says=(":2: image", "of no kind of picture"),
             status=415),
    _picture("a picture of 60,000 x 60,000", lambda: _encode_large(),
             says=(":2: image", "at most 50,000,000 pixels"), status=422),
    _jsonl("a data URI", _line(image=f"data:image/jpeg;base64,{_BASE64}"), reads=_TEXTS,
           size=(64, 48), payload={"image": f"data:image/jpeg;base64,{_BASE64}"}, status=422),
    _jsonl("a data URI that does not decode", _line(image="data:image/png;base64,%%%"),
           says=(":2: image", "is base64 that does not decode")),
    _jsonl("bare base64", _line(image=_BASE64), reads=_TEXTS, size=(64, 48),
           payload={**_TEXTS, "image": _BASE64}),
    _jsonl("base64 that is damaged", _line(image=_BASE64[:200] + "*" * 200),
           says=(":2: image", "is base64 that does not decode"),
           payload={"image": _BASE64[:200] + "*" * 200}, status=422),
    _jsonl("a URL", _line(image=_URL), says=(":2: image", "is a URL", "curl -O", "img2dataset"),
           payload={"image": _URL}, status=422),
    _jsonl("a path of 5,000 characters", _line(image="x" * 5_000),
           says=(":2: image", "cannot be reached")),
    _jsonl("a path with a null", _line(image="a\0b.jpg"), says=(":2: image", "does not exist")),
    _jsonl("a missing file", _line(image="none.jpg"), says=(":2: image", "does not exist")),
]  # fmt: skip


def _encode_turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode_picture("JPEG", exif=exif)


def _encode_large() -> bytes:
    data = bytearray(_JPEG())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


ODD_INPUTS: Sequence[OddInput] = [*LABELS, *IDS, *TABLES, *TEXTS, *FOLDERS, *PICTURES]


def ask_data(case: OddInput, path: Path) -> str:
    """Return what `miko-clf data` says: `read` with its remarks, or `refused` and why."""
    options = [f"--label-map={case.label_map}"] if case.label_map else []
    ended = run_command("data", path, "--json", *options)
    if ended.code:
        return f"refused: {ended.err.strip()}"
    facts = json.loads(ended.out)
    if facts["unusable"]:
        return "refused: " + "; ".join(facts["reasons"])
    return "; ".join(["read", *facts["notes"]])


def ask_score(path: Path, scorer: Scorer, *, skip_bad: bool = False) -> str:
    """Return what `score` says of a file, and nothing of a folder, which it does not take."""
    if path.suffix not in TABLE_SUFFIXES:
        return ""
    out = path.with_name("scores.jsonl")
    try:
        summary = scorer.score_file(path, out, skip_bad=skip_bad)
    except MikoError as error:
        return f"refused: {error}"
    if summary.skipped:
        return "refused: " + "; ".join(summary.reasons)
    return "; ".join(["read", *summary.remarks])


def ask_server(case: OddInput, client: TestClient) -> tuple[int, dict[str, Any]]:
    """Return the status and the body with which the server answers what it is sent of a case."""
    payload = dict(case.payload or {})
    if payload.pop("bytes", False):
        content = next(data for name, data in case.files().items() if name != case.table)
        payload = {"text": "so it goes", "image": base64.b64encode(content).decode()}
    answer = client.post("/v1/score", json={"posts": [{"id": case.post, **payload}]})
    return answer.status_code, answer.json()


def wait_until_ready(client: TestClient) -> TestClient:
    """Return a client whose server is ready to score."""
    end = time.monotonic() + 20
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.01)
    return client


def main() -> None:
    """Print the table with verdicts, of a system trained for moments."""
    with TemporaryDirectory() as place:
        home = Path(place)
        write_world(home / "world", num_posts=120)
        miko_clf.fit(recipes.load_recipe("tiny", SMALL_KEYS), home / "world/sarcasm", home / "tiny")
        miko_clf.export(home / "tiny")
        scorer = load(home / "tiny", threads=1)
        with TestClient(make_app(scorer.engine)) as client:
            wait_until_ready(client)
            for number, case in enumerate(ODD_INPUTS, 1):
                path = case.write(home / str(number))
                verdicts = {"data": ask_data(case, path), "score": ask_score(path, scorer)}
                if case.payload:
                    status, body = ask_server(case, client)
                    verdicts["HTTP"] = f"{status} {body.get('error', '')}"
                print(f"{number:3}  {case.name}")
                for door, verdict in verdicts.items():
                    if verdict:
                        said = verdict.replace(f"{home / str(number)}/", "").replace(place, "")
                        print(f"       {door:5}  {said:.160}")


if __name__ == "__main__":
    main()
