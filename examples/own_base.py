"""Serve Mem0 with a base encoder of your own.

    python examples/own_base.py FOLDER

FOLDER is a sentence-transformers model, e.g. what `SentenceTransformer("intfloat/e5-small-v2").save(FOLDER)` writes. A
new store begins with it, the vector store's dimension follows, and `hins train` starts from what serves.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hins_memory import Encoder, Memory


def main(argv: Sequence[str] | None = None) -> None:
    """Open a Mem0 whose store begins with the model of a folder."""
    parser = argparse.ArgumentParser(description="Serve Mem0 with a base encoder of your own.")
    parser.add_argument("folder", type=Path, help="a sentence-transformers folder with safetensors")
    arguments = parser.parse_args(argv)

    encoder = Encoder.load(arguments.folder)
    print(f"{arguments.folder}: {encoder.dim} dimensions, version {encoder.version}")
    memory = Memory(embedder="hins", model=arguments.folder)
    memory.add("Ann plays the oboe.", user_id="ann", infer=False)
    found = memory.search("Which instrument?", filters={"user_id": "ann"})
    print(found["results"][0]["memory"])
    memory.close()


if __name__ == "__main__":
    main()
