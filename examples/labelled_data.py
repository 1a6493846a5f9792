"""Train an encoder on labelled questions, without an agent, and compare it with what it was trained from.

    python examples/labelled_data.py TRAIN.csv TEST.csv my-encoder

The columns are `query`, `positive`, and where they are known `conversation`, `speaker`, `topic`, `user` and `time`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import hins_memory
from hins_memory.training import TrainSettings


def main(argv: Sequence[str] | None = None) -> None:
    """Train on one file and score on another."""
    parser = argparse.ArgumentParser(description="Train an encoder on labelled questions.")
    parser.add_argument("train", type=Path, help="labelled questions to learn from (.csv, .jsonl, .parquet)")
    parser.add_argument("test", type=Path, help="labelled questions of other conversations")
    parser.add_argument("folder", type=Path, help="where the encoder is written")
    parser.add_argument("--base", default="starter", help="starter, stock, or a sentence-transformers folder")
    parser.add_argument("--mode", choices=("lora", "full", "query"), default="lora", help="query trains in seconds")
    arguments = parser.parse_args(argv)

    settings = TrainSettings(mode=arguments.mode)
    trained = hins_memory.train_encoder(arguments.train, arguments.folder, base=arguments.base, settings=settings)
    found = hins_memory.compare_encoders(arguments.test, {"before": arguments.base, "after": trained.folder})
    for name, scores in found.scores.items():
        print(f"{name:8} nDCG@10 {100 * scores.mean()['ndcg@10']:.1f}")
    gain = found.gains["after"]
    print(f"change   {100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}, 95%)")


if __name__ == "__main__":
    main()
