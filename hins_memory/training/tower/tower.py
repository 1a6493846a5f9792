"""The `tower` mode from end to end: what is trained, against what, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.data.examples import without_surrogates
from hins_memory.data.stored_vectors import StoredVectors
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import score_offset_of
from hins_memory.encoders.sides import two_sided
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.postprocess.forgetting import limit_forgetting
from hins_memory.training.postprocess.weight_averaging import average_weights
from hins_memory.training.query_samples import SampleVectors
from hins_memory.training.settings import TrainSettings
from hins_memory.training.tower.calibration import calibrate_tower
from hins_memory.training.tower.model import TwoSides, document_side, one_sided
from hins_memory.training.tower.targets import Targets
from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from torch import nn

__all__ = ["Tower"]


class Tower:
    """A training of an encoder's queries against the vectors that it has made of documents, which stay as they are.

    The tower begins as a copy of the documents' encoder, also where another tower serves: every round reads the whole
    log, so that nothing is missing, and what rounds forget does not add up.

    Memory does not grow with the store: vectors are float16 and mapped from their file, and a query has at most 1024
    negatives; where there are more, the nearest 512 and a random sample of the others that counts for all of them.

    Args:
        encoder: the encoder of the documents, or one of two sides, of which the documents' is taken.
        examples: what is trained on.
        stored: the stored vectors; None takes the texts of the examples, embedded once.
        settings: how.

    Raises:
        NotEnoughDataError: no query has a memory that it is not to find.
        TrainingError: the encoder has two sides of another kind.
    """

    def __init__(
        self,
        encoder: Encoder,
        examples: Sequence[TieredExample],
        stored: StoredVectors | None,
        settings: TrainSettings,
    ) -> None:
        side = document_side(encoder.model)
        if not one_sided(side):
            raise TrainingError(
                "The encoder treats queries and documents differently already: a tower has nothing to begin as.",
                "Train it in the mode 'lora' or 'full', or start from another base.",
            )
        same = side is encoder.model
        #: embeds documents as they are stored; its model is what the tower begins as
        self.documents = encoder if same else Encoder(side, encoder.version, space=encoder.space)
        self.targets = Targets(examples, stored, self.documents, heights=settings.calibrate_scores)
        if not len(self.targets):
            raise NotEnoughDataError(
                "No query has a memory beside its positives that it could be told apart from.",
                "Let the agent store more before it is trained.",
            )
        self._settings = settings
        offset = score_offset_of(side)
        self._offset = offset[0] if offset else 0.0

    def dataset(self) -> Dataset:
        """Return the queries, and as labels their places among the targets."""
        from datasets import Dataset

        queries = [without_surrogates(target.query) for target in self.targets]
        return Dataset.from_dict({"query": queries, "label": list(range(len(queries)))})

    def loss(self, model: SentenceTransformer) -> nn.Module:
        """Return the loss of a model of the queries."""
        from hins_memory.training.tower.stored_loss import StoredVectorsLoss

        return StoredVectorsLoss(
            model,
            self.targets,
            # An offset of the documents' scores moves their cosines nearer to one another by this factor.
            temperature=self._settings.temperature / (1 + self._offset),
            micro_batch_size=self._settings.micro_batch_size,
            hold_scores=self._settings.calibrate_scores,
        )

    def encoder_of(self, model: SentenceTransformer) -> Encoder:
        """Return an encoder of both sides, whose queries are a model's."""
        return TwoSides(model, self.documents)

    def postprocess(
        self, model: SentenceTransformer, auxiliary: AuxiliaryData
    ) -> tuple[SentenceTransformer, dict[str, Any]]:
        """Return the model of both sides, and what was measured, from the trained model of the queries.

        Scores are calibrated by a last layer of the queries; it moves general retrieval a little, so that forgetting,
        which is limited as in the other modes, is measured with it.

        Args:
            model: the trained model; its weights may be changed.
            auxiliary: the sets that must not get much worse, and the queries that scores are calibrated on.
        """
        settings, base = self._settings, self.documents.model
        samples = auxiliary.heldout_queries or auxiliary.training_queries
        before = SampleVectors(samples, self.documents) if settings.calibrate_scores else None

        def calibrate() -> tuple[SentenceTransformer, dict[str, Any]]:
            if before is None:
                return model, {}
            return calibrate_tower(model, self.encoder_of(model), before, settings.score_thresholds)

        calibrated = calibrate()

        def scale_update(factor: float) -> None:
            nonlocal calibrated
            average_weights(model, base, factor)
            calibrated = calibrate()

        measured = limit_forgetting(
            self.documents, auxiliary, trained=lambda: self.encoder_of(calibrated[0]), scale_update=scale_update
        )
        return two_sided(calibrated[0], base), measured | calibrated[1]
