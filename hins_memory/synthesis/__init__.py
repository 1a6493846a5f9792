"""Training data for an agent without traffic: conversations by rules or by a language model, written as a log."""

from hins_memory.common.renamed import old_names
from hins_memory.synthesis.conversation import Conversation, Item, Query, Utterance
from hins_memory.synthesis.filters import Exclusion
from hins_memory.synthesis.model.model import ModelSettings, converse_by_model
from hins_memory.synthesis.rules.corpus import Dialogue, read_corpus, read_personas
from hins_memory.synthesis.rules.rules import RuleSettings
from hins_memory.synthesis.rules.words import FEMALE, MALE
from hins_memory.synthesis.run import (
    SynthesisReport,
    conversations_by_rules,
    conversations_of_logs,
    write_conversations,
)

#: The first names that invented speakers may get.
FIRST_NAMES = frozenset(FEMALE + MALE)

__all__ = [
    "FIRST_NAMES",
    "Conversation",
    "Dialogue",
    "Exclusion",
    "Item",
    "ModelSettings",
    "Query",
    "RuleSettings",
    "SynthesisReport",
    "Utterance",
    "conversations_by_rules",
    "conversations_of_logs",
    "converse_by_model",
    "read_corpus",
    "read_personas",
    "write_conversations",
]

__getattr__ = old_names(__name__, {"Said": ("Utterance", Utterance)})
