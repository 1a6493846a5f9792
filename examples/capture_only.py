"""Record what an agent of your own does, without any adapter: that is enough to mine, train and evaluate.

    python examples/capture_only.py

Events go to the log of the project under HINS_HOME (default ~/.hins). Swapping the trained encoder in is then yours to
do: load the version's folder with `hins_memory.Encoder.load` and embed your texts again, or write an adapter.
"""

from hins_memory import Pipeline, Settings
from hins_memory.log import Capture
from hins_memory.types import Answer, Memory, RankedMemory, Retrieval, Scope, Turn

TEXTS = ["I gave up the cello and play the oboe now.", "My flight to Oslo leaves at six on Friday."]


def main() -> None:
    """Record two memories, a search and its answer."""
    settings = Settings()
    scope = Scope.of(user="ann", agent="my-agent")
    assert scope is not None  # None stands for an owner without a name, whose events are not recorded
    with Capture(settings) as capture:
        turns = [Turn(scope, conversation="monday", speaker="Ann", text=text) for text in TEXTS]
        # The ids are your store's own; a memory that is recorded again under its id is an update.
        memories = [Memory(f"m{i}", scope, "monday", turn.text, "Ann", (turn.id,)) for i, turn in enumerate(turns)]
        for turn, memory in zip(turns, memories, strict=True):
            capture.record(turn)
            capture.record(memory)

        # What your search found, best first, with the text that was embedded.
        results = tuple(RankedMemory(memory.id, memory.text, 0.5) for memory in memories)
        search = Retrieval(scope, "Which instrument does Ann play?", results)
        capture.record(search)
        capture.record(Answer(search.id, "The oboe."))

    log = Pipeline(settings).status().log
    print(f"{log.turns} turns, {log.memories} memories, {log.retrievals} searches, {log.answers} answers")


if __name__ == "__main__":
    main()
