"""Mem0 with the project's encoder: store, search, tell the outcome, and see what the log holds.

    pip install "hins-memory[mem0]"
    python examples/mem0_quickstart.py

It needs no key and no network, and keeps its data under HINS_HOME (default ~/.hins).
"""

from hins_memory import Memory, Pipeline

SAID = [
    ("Ann", "I gave up the cello and play the oboe now."),
    ("Bob", "My sister has three cellos in her attic."),
    ("Ann", "My flight to Oslo leaves at six on Friday."),
]


def main() -> None:
    """Play a few turns through a real Mem0 and show what was recorded."""
    memory = Memory(embedder="hins")
    messages = [{"role": "user", "name": name, "content": f"{name}: {text}"} for name, text in SAID]
    memory.add(messages, user_id="ann", infer=False)

    found = memory.search("Which instrument does Ann play?", filters={"user_id": "ann"})
    for result in found["results"]:
        print(f"{result['score']:.2f}  {result['memory']}")
    # Without an outcome a search teaches nothing: the answer that was given, or feedback on a memory.
    memory.answered(found["retrieval_id"], "The oboe.")
    memory.feedback(found["results"][0]["id"], "POSITIVE")

    log = Pipeline(memory=memory).status().log
    print(f"{log.memories} memories, {log.retrievals} searches, {log.answers} answers, {log.feedback} feedback")
    memory.close()
    # Once there is traffic: Pipeline(memory=memory).run(), or `hins run`.


if __name__ == "__main__":
    main()
