"""Training data for an agent without traffic: conversations by rules or by a language model, written as a log."""

from hins_memory.synthesize.conversation import Conversation, Item, Query, Said
from hins_memory.synthesize.corpus import Dialogue, read_corpus, read_personas
from hins_memory.synthesize.filters import Exclusion, FilterSettings
from hins_memory.synthesize.model import ModelSettings, converse_by_model
from hins_memory.synthesize.rules import RuleSettings
from hins_memory.synthesize.run import (
    SynthesisReport,
    conversations_by_rules,
    conversations_of_logs,
    write_conversations,
)
from hins_memory.synthesize.words import FEMALE, MALE

#: The first names that invented speakers may get.
FIRST_NAMES = frozenset(FEMALE + MALE)

__all__ = [
    "FIRST_NAMES",
    "Conversation",
    "Dialogue",
    "Exclusion",
    "FilterSettings",
    "Item",
    "ModelSettings",
    "Query",
    "RuleSettings",
    "Said",
    "SynthesisReport",
    "conversations_by_rules",
    "conversations_of_logs",
    "converse_by_model",
    "read_corpus",
    "read_personas",
    "write_conversations",
]
