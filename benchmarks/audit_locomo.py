"""Find LoCoMo's label errors that a program can tell, for ``locomo.py --audited``.

    python benchmarks/audit_locomo.py --data locomo10.json --write FILE

shows them, and writes the list where it is told to.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import LOCOMO, load_locomo
from parts.datasets.locomo_audit import AUDIT, find_label_errors, write_errors


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit and return the exit status."""
    parser = base_parser("LoCoMo: questions with label errors that a program can tell. There is nothing random in it.")
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"write the list there; `--audited` reads {AUDIT}")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    path = resolve_data(arguments.data, LOCOMO)
    questions = sum(len(one.questions) for one in load_locomo(path))  # which also checks the format
    content = path.read_bytes()
    errors = find_label_errors(json.loads(content))
    show_table(
        f"{len(errors)} of {questions} questions",
        ["conversation", "question", "reason", "detail"],
        [[one.conversation, one.number, one.reason, one.detail] for one in errors],
    )
    if arguments.write is not None:
        write_errors(arguments.write, errors, hashlib.sha256(content).hexdigest())
        stage(f"list written to {arguments.write}")
    counts = Counter(one.reason for one in errors)
    figures = {"questions": float(questions), "label_errors": float(len(errors))}
    rows = [{"reason": reason, "questions": count} for reason, count in sorted(counts.items())]
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    write_result(arguments.json, figures, rows, settings)


if __name__ == "__main__":
    sys.exit(main())
