"""The words that the commands on a knowledge base take."""

from collections.abc import Mapping
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from miko_clf.cli.distil_options import asked
from miko_clf.cli.parser import Command, Parser

ROWS = ("posts", "intentions")


def adopt(parser: Parser) -> None:
    """Add what `kb import` takes."""
    _kb(parser)
    add = parser.add_argument
    say = "released file of MIKO: the benchmark, intentions with key information, or descriptions"
    add("files", type=Path, nargs="+", metavar="FILE", help=say)
    say = "MMSD2.0 file, or folder of its splits, whose labels the posts are given"
    add("--labels", type=Path, metavar="PATH", help=say)
    add("--images", type=Path, metavar="DIR", help="where the pictures of the posts lie")


def export(parser: Parser) -> None:
    """Add what `kb export` takes."""
    _kb(parser)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help=".jsonl or .parquet file to write")
    say = "file whose posts are filled in, with all the columns that it has"
    add("--posts", type=Path, metavar="POSTS", help=say)
    say = "a row is a post, or an intention with its provenance (default: %(default)s)"
    add("--rows", choices=ROWS, default="posts", help=say)
    _choice(parser)
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")


def show(parser: Parser) -> None:
    """Add what `kb show` takes."""
    _kb(parser)
    parser.add_argument("id", type=str, metavar="ID", help="id of a post")
    parser.add_argument("--raw", action="store_true", help="show the answers as they came")


def stats(parser: Parser) -> None:
    """Add what `kb stats` takes."""
    _kb(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def judge(parser: Parser) -> None:
    """Add what `kb judge` takes."""
    _kb(parser)
    asked(parser)
    say = "share of the posts that are judged twice, to see how far the judge agrees with itself"
    add = parser.add_argument
    add("--repeat", type=ClosedUnitInterval, default=0.05, metavar="X", help=f"{say} (%(default)s)")
    add("--no-pictures", action="store_true", help="judge by the words and the description")
    say = "keep @names, addresses and telephone numbers (default: masked unless the server is near)"
    add("--keep-names", action="store_true", help=say)


def critic(parser: Parser) -> None:
    """Add what `kb critic` takes."""
    _kb(parser)
    add = parser.add_argument
    add("--text", type=str, required=True, metavar="NAME", help="text tower: a folder or a name")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the critic")
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")


def weigh(parser: Parser) -> None:
    """Add what `kb weigh` takes."""
    _kb(parser)
    say = "folder that kb critic has written"
    parser.add_argument("--critic", type=Path, required=True, metavar="DIR", help=say)


def agree(parser: Parser) -> None:
    """Add what `kb agree` takes."""
    _kb(parser)


def annotate(parser: Parser) -> None:
    """Add what `kb annotate` takes."""
    _kb(parser)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT.json", help="tasks to write; the interface goes beside them")
    say = "folder of pictures that Label Studio serves (default: that of the knowledge base)"
    add("--images", type=Path, metavar="DIR", help=say)
    add("--count", type=PositiveInt, metavar="N", help="posts, drawn by their ids (default: all)")
    say = "show annotators what judges said; they will lean to it"
    add("--prefill", action="store_true", help=say)


def annotated(parser: Parser) -> None:
    """Add what `kb annotated` takes."""
    _kb(parser)
    say = "JSON export of Label Studio"
    parser.add_argument("file", type=Path, metavar="FILE.json", help=say)


def leak(parser: Parser) -> None:
    """Add what `kb leak` takes."""
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help="file of labelled posts, or a data folder")
    say = "split of a data folder, may be repeated (default: train, else all)"
    add("--split", action="append", default=[], metavar="S", help=say)


def bench(parser: Parser) -> None:
    """Add what `kb bench` takes."""
    add = parser.add_argument
    add("reference", type=Path, metavar="REFERENCE", help="knowledge base of the reference")
    add("others", type=Path, nargs="+", metavar="KB", help="knowledge bases to compare with it")
    say = "folder of a text encoder for BERTScore (default: BERTScore is left out)"
    add("--encoder", type=str, metavar="NAME", help=say)
    add("--by-model", action="store_true", help="a row for each model of a knowledge base")
    say = "posts that are compared at most (default: %(default)s)"
    add("--limit", type=PositiveInt, default=1000, metavar="N", help=say)
    add("--out", type=Path, metavar="OUT.json", help="write the table here, and as .md beside it")


def _kb(parser: Parser) -> None:
    parser.add_argument(
        "kb", type=Path, metavar="KB", help="knowledge base that distil has written"
    )


def _choice(parser: Parser) -> None:
    add = parser.add_argument
    say = "set of answers (default: the newest that ended well)"
    add("--sample", type=NonNegativeInt, metavar="N", help=say)
    say = "leave out intentions that judges find less plausible, from 0 to 1, and unjudged ones"
    add("--min-plausibility", type=ClosedUnitInterval, metavar="X", help=say)
    add("--without", action="append", default=[], metavar="REL", help="leave out a relation")
    say = "which to export where there are both"
    add("--rationale", choices=("rationale", "debate"), help=say)


_SERVER = "KB --server URL --model NAME [options]"
_JUDGE = "kb.sqlite --server http://127.0.0.1:8000/v1 --model another-model"
COMMANDS: Mapping[str, Command] = {
    "kb stats": Command(
        "Say what a knowledge base holds, by relation, task, label and model",
        "KB [--json]",
        "kb.sqlite",
        stats,
        "distil",
    ),
    "kb show": Command(
        "Show all that is known of one post", "KB ID [--raw]", "kb.sqlite a1", show, "distil"
    ),
    "kb export": Command(
        "Write posts with what is known of them, as JSONL or Parquet",
        "KB OUT [--posts POSTS] [options]",
        "kb.sqlite with-intentions.jsonl --posts posts.jsonl",
        export,
        "distil",
    ),
    "kb import": Command(
        "Take MIKO's released files into a knowledge base",
        "KB FILE... [--labels PATH] [--images DIR]",
        "miko.sqlite MIKO_benchmark.json",
        adopt,
        "distil",
    ),
    "kb judge": Command(
        "Ask an LLM how plausible and how typical each intention is",
        _SERVER,
        _JUDGE,
        judge,
        "distil",
    ),
    "kb critic": Command(
        "Train a critic on what people said of intentions",
        "KB --text NAME --out DIR",
        "miko.sqlite --text all-MiniLM-L6-v2 --out critic",
        critic,
        "train,distil",
    ),
    "kb weigh": Command(
        "Put a critic's probability on every intention",
        "KB --critic DIR",
        "kb.sqlite --critic critic",
        weigh,
        "train,distil",
    ),
    "kb agree": Command(
        "Say how far judges, critics and people agree", "KB", "kb.sqlite", agree, "distil"
    ),
    "kb annotate": Command(
        "Write intentions as tasks of Label Studio",
        "KB OUT.json [options]",
        "kb.sqlite tasks.json --count 300",
        annotate,
        "distil",
    ),
    "kb annotated": Command(
        "Read what annotators said back in", "KB FILE.json", "kb.sqlite export.json", annotated,
        "distil",
    ),
    "kb leak": Command(
        "Say which texts of posts give their labels away",
        "POSTS [--split S]",
        "with-rationales.jsonl",
        leak,
        "distil",
    ),
    "kb bench": Command(
        "Compare what several models wrote with a reference",
        "REFERENCE KB... [--encoder NAME] [options]",
        "teacher.sqlite student.sqlite --encoder all-MiniLM-L6-v2",
        bench,
        "train,distil",
    ),
}  # fmt: skip
