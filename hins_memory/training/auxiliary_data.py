"""What training uses beside its examples without learning from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hins_memory.errors import ConfigError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.evaluation.general import load_general
from hins_memory.evaluation.skills import skill_sets
from hins_memory.training.fit.replay import general_texts, memory_texts
from hins_memory.training.query_samples import QuerySample

if TYPE_CHECKING:
    from hins_memory.data.stored_vectors import StoredVectors
    from hins_memory.evaluation import EvalSet

__all__ = ["AuxiliaryData"]

# People of each skill: their 430 questions tell the mean over the skills as well as the general ones tell theirs.
_PEOPLE = 2


@dataclass(frozen=True, slots=True)
class AuxiliaryData:
    """What training uses beside its examples: for score calibration, early stopping and the limit on forgetting.

    Attributes:
        training_queries: queries of the conversations that are trained on, with the texts that were searched, best
            not the queries of the examples. The `query` mode keeps their scores near the base's. When empty, a sample
            is made from the examples.
        heldout_queries: the same of conversations that are not trained on. Score calibration uses them: it sets one
            number by how high scores are, and does not use which texts are relevant. When empty, `full` and `lora`
            use `training_queries`, whose scores training moves further.
        early_stopping_sets: labelled queries that early stopping measures (`TrainSettings.patience`), best not those
            that the gate measures. The loop fits the keyword weight on them too.
        general: a general-retrieval set that must not get much worse; None sets no limit.
        skills: sets of other questions about memories, which must not get much worse on average. Neither these nor
            `general` should hold what the gate judges by.
        general_loss: how much nDCG@10 each of the two may lose, 0 to 1, before the trained update is scaled down.
        stored: the stored vectors that a `tower` is trained against; None trains it on the texts of the examples.
        kept_texts: the texts that `TrainSettings.distillation` keeps; when empty, packaged general text alone.

    Raises:
        ConfigError: `general_loss` is out of range.
    """

    training_queries: Sequence[QuerySample] = ()
    heldout_queries: Sequence[QuerySample] = ()
    early_stopping_sets: Sequence[EvalSet] = ()
    general: EvalSet | None = None
    general_loss: float = GateSettings().general_loss_in_training
    stored: StoredVectors | None = None
    skills: Sequence[EvalSet] = ()
    kept_texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.general_loss <= 1:
            raise ConfigError(f"general_loss is {self.general_loss}.", "Use 0 to 1; 0.01 is one point.")

    def with_packaged_sets(self, skills: Sequence[str] | None = None) -> AuxiliaryData:
        """Return this with the packaged sets and texts that training may look at, of which the gate judges by none.

        Args:
            skills: which memory skills; None means all.

        Raises:
            ConfigError: there is no such skill.
        """
        chosen = skill_sets("choose", skills, people=_PEOPLE)
        kept = (*general_texts(), *memory_texts())
        return replace(self, general=load_general("choose"), skills=chosen, kept_texts=kept)
