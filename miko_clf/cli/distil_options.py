"""The words that the commands which ask LLMs, and read what they said, take."""

from collections.abc import Mapping
from pathlib import Path

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from miko_clf.cli.parser import Command, Parser

TASKS = ("intentions", "rationale", "debate")
ORDERS = ("one-call", "per-stage", "per-relation")


def distil(parser: Parser) -> None:
    """Add what `distil` takes."""
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help="file of posts, or a data folder")
    _kb(parser, "file that holds every answer; made, or gone on with")
    say = (
        "intentions (MIKO: description, key information, ten intentions), rationale (Mr.Harm: why "
        "the label holds, written knowing it), or debate (one rationale a label, made without it)"
    )
    add("--task", choices=TASKS, default="intentions", help=f"{say} (default: %(default)s)")
    asked(parser)
    say = "model that describes the pictures (default: --model is shown them itself)"
    add("--vision-model", type=str, metavar="NAME", help=say)
    add("--no-pictures", action="store_true", help="send no picture")
    say = "intentions in one structured call, in MIKO's three stages, or a call for each relation"
    add("--plan", choices=ORDERS, default="one-call", help=f"{say} (default: %(default)s)")
    add("--labels", type=str, metavar="A,B", help="sides of a debate (default: the posts' labels)")
    say = "keep @names, addresses and telephone numbers (default: masked unless the server is near)"
    add("--keep-names", action="store_true", help=say)
    say = "ask anew, and keep the N-th set of answers beside the others (default: %(default)s)"
    add("--sample", type=NonNegativeInt, default=0, metavar="N", help=say)
    say = "split of a data folder, may be repeated (default: all; for rationales train and val)"
    add("--split", action="append", default=[], metavar="S", help=say)
    add("--limit", type=PositiveInt, metavar="N", help="read the first N posts only")
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")
    add("--dry-run", action="store_true", help="probe, estimate, and ask nothing")
    _batch(parser)


def student(parser: Parser) -> None:
    """Add what `distil student` takes."""
    add = parser.add_argument
    say = "knowledge base, or file of posts with intentions"
    add("source", type=Path, metavar="KB", help=say)
    say = "generator to fine-tune, encoder-decoder or causal: a folder or a name on the hub"
    add("--model", type=str, required=True, metavar="NAME", help=say)
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the student")
    add("--full", action="store_true", help="tune all weights (default: LoRA)")
    add("--rank", type=PositiveInt, default=16, metavar="N", help="of LoRA (default: %(default)s)")
    add("--epochs", type=PositiveInt, default=5, metavar="N", help="at most (default: %(default)s)")
    say = "epochs without a lower validation loss that end it (default: %(default)s)"
    add("--patience", type=PositiveInt, default=2, metavar="N", help=say)
    add("--batch-size", type=PositiveInt, default=16, metavar="N", help="(default: %(default)s)")
    say = "peak learning rate (default: 3e-4 for LoRA, 5e-5 for all weights)"
    add("--rate", type=PositiveFloat, metavar="X", help=say)
    say = "tokens of a post that are read (default: %(default)s)"
    add("--prompt-tokens", type=PositiveInt, default=256, metavar="N", help=say)
    say = "tokens of an intention that are written (default: %(default)s)"
    add("--answer-tokens", type=PositiveInt, default=64, metavar="N", help=say)
    say = "do not teach intentions that judges find less plausible (default: %(default)s)"
    add("--min-plausibility", type=ClosedUnitInterval, default=0.0, metavar="X", help=say)
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    say = "minutes between checkpoints within an epoch (default: %(default)s)"
    add("--minutes", type=PositiveFloat, default=10.0, metavar="X", help=say)
    add("--overwrite", action="store_true", help="replace a student, or another run's checkpoints")


def asked(parser: Parser) -> None:
    """Add what a server is asked with, shared by all commands that ask one."""
    add = parser.add_argument
    say = "an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, or local:DIR of a student"
    add("--server", type=str, metavar="URL", help=say)
    add("--model", type=str, metavar="NAME", help="model to ask")
    say = "model to ask what another refused, may be repeated, in order"
    add("--fallback", action="append", default=[], metavar="NAME", help=say)
    say = "environment variable of the key (default: MIKO_API_KEY, else OPENAI_API_KEY)"
    add("--key-name", type=str, metavar="VAR", help=say)
    say = "calls under way at most (default: %(default)s)"
    add("--in-flight", type=PositiveInt, default=64, metavar="N", help=say)
    add("--rpm", type=PositiveFloat, metavar="X", help="calls a minute (default: what it bears)")
    say = "seconds for one answer (default: %(default)s)"
    add("--deadline", type=PositiveFloat, default=120.0, metavar="X", help=say)
    say = "seconds without any answer that end the run (default: %(default)s)"
    add("--patience", type=NonNegativeFloat, default=180.0, metavar="X", help=say)
    add("--temperature", type=NonNegativeFloat, metavar="X", help="(default: 0.7, rationales 0)")
    add("--top-p", type=PositiveFloat, default=1.0, metavar="X", help="(default: %(default)s)")
    add("--seed", type=int, metavar="N", help="seed that the server is sent")
    add("--max-tokens", type=PositiveInt, metavar="N", help="longest answer (default: by stage)")
    say = "YAML of dollars a million tokens, `model: {input: X, cached: X, output: X, batch: 0.5}`"
    add("--prices", type=Path, metavar="FILE", help=say)
    say = "stop before the knowledge base has cost more, earlier runs included; exits with 3"
    add("--budget-usd", type=PositiveFloat, metavar="X", help=say)
    add("--no-probe", action="store_true", help="trust the server to do all that it is asked")


def _batch(parser: Parser) -> None:
    add = parser.add_argument
    say = (
        "send nothing: write calls as JSONL of OpenAI's Batch API (which `vllm run-batch` reads) "
        "to DIR, and read the answers found there; repeat until nothing is left"
    )
    add("--batch", type=Path, metavar="DIR", help=say)
    add("--submit", action="store_true", help="with --batch: hand the files to the server's API")


def _kb(parser: Parser, say: str) -> None:
    parser.add_argument("--kb", type=Path, required=True, metavar="FILE.sqlite", help=say)


COMMANDS: Mapping[str, Command] = {
    "distil": Command(
        "Ask an LLM what the authors of posts intend, once, and keep every answer",
        "POSTS --server URL --model NAME --kb FILE.sqlite [--task T] [options]",
        "posts.jsonl --server http://127.0.0.1:8000/v1 --model qwen3-vl --kb kb.sqlite",
        distil,
        "distil",
    ),
    "distil student": Command(
        "Fine-tune a small generator on what an LLM wrote, to write intentions locally",
        "KB --model NAME --out DIR [options]",
        "kb.sqlite --model google/flan-t5-small --out student",
        student,
        "train,distil",
    ),
}
