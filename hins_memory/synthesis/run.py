"""The synthesis as a whole: conversations, quality controls, and the interaction log that they are written to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.synthesis.conversation import Conversation
from hins_memory.synthesis.events import events
from hins_memory.synthesis.filters import Exclusion, Selection
from hins_memory.synthesis.rules.corpus import Dialogue, dialogues_of
from hins_memory.synthesis.rules.rules import SESSIONS, RuleSettings, generate_conversations
from hins_memory.types import SYNTHETIC_TENANT, Event, Progress, Scope, ScopeLog, synthetic_tenant

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["SynthesisReport", "conversations_by_rules", "conversations_of_logs", "write_conversations"]

#: Conversations under one owner, which give each other easy negatives.
PER_OWNER = 3
Owned = tuple[Scope, Conversation]


@dataclass(slots=True)
class SynthesisReport:
    """What was synthesised; `dropped` counts the questions left out by reason, `kinds` those kept."""

    source: str
    conversations: int = 0
    turns: int = 0
    memories: int = 0
    questions: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return asdict(self) | {"kinds": dict(self.kinds.most_common()), "dropped": dict(self.dropped.most_common())}


def conversations_by_rules(
    dialogues: Sequence[Dialogue], settings: RuleSettings, exclusion: Exclusion | None = None, limit: int = 0
) -> Iterator[Owned]:
    """Yield (owner, conversation) made of a corpus by rules; `limit` conversations at most, 0 means all.

    Raises:
        ConfigError: the corpus is too small for one conversation.
    """
    digest = hashlib.sha256(repr((settings, [one.turns for one in dialogues])).encode("utf-8", "surrogatepass"))
    made = generate_conversations(dialogues, settings, exclusion)
    for number, conversation in enumerate(islice(made, limit) if limit else made):
        name = f"synthetic-{digest.hexdigest()[:8]}-{number // PER_OWNER}"
        yield Scope(user=name, tenant=SYNTHETIC_TENANT), conversation


def conversations_of_logs(
    logs: Iterable[ScopeLog], settings: RuleSettings, exclusion: Exclusion | None = None
) -> Iterator[Owned]:
    """Yield (owner, conversation) made of captured logs by rules.

    Each keeps the user, tenant and agent of its log, so that owners are not mixed and a purge finds it.

    Raises:
        NotEnoughDataError: no owner has a captured conversation of two speakers.
    """
    found = False
    for log in logs:
        dialogues = [] if log.scope.synthetic else dialogues_of(log)
        if dialogues and log.scope.user:
            found = True
            sessions = min(SESSIONS, len(dialogues))
            owner = replace(log.scope.owner, tenant=synthetic_tenant(log.scope.tenant))
            yield from ((owner, one) for one in generate_conversations(dialogues, settings, exclusion, sessions))
    if not found:
        raise NotEnoughDataError(
            "The log holds no conversation of a named user with two speakers and at least 4 turns.",
            "Name a corpus with --corpus FILE.csv, or let the agent run longer.",
        )


def write_conversations(
    made: Iterable[Owned],
    encoder: Encoder,
    write: Callable[[Sequence[Event]], object],
    *,
    questions: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> SynthesisReport:
    """Select questions and write the conversations, each in one transaction.

    Args:
        made: (owner, conversation) each.
        encoder: what ranks in the log, usually the stock encoder.
        write: what takes the events of one conversation, e.g. `LogWriter.write`.
        questions: at most this many are kept in all, spread evenly over the conversations, for which `made` has to be
            a list; 0 keeps all.
        seed: of which questions are kept.
        progress: called as (``synthesize``, conversations done, conversations in all or 0).

    Raises:
        ConfigError: `questions` is set and `made` has no length.
        LogError: the log cannot be written.
    """
    total = len(made) if isinstance(made, Sequence) else 0
    if questions and not total:
        raise ConfigError("A number of questions is spread over a list of conversations.", "Give a list.")
    report = SynthesisReport("")
    selection = Selection(questions, total, seed, report.dropped)
    for done, (owner, conversation) in enumerate(made, start=1):
        chosen = selection.select(conversation)
        write(list(events(chosen, owner, encoder)))
        report.source = chosen.source
        report.conversations += 1
        report.turns += len(chosen.turns)
        report.memories += len(chosen.items)
        report.questions += len(chosen.queries)
        report.kinds.update(query.kind for query in chosen.queries)
        if progress:
            progress("synthesize", done, total)
    return report
