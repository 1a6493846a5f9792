"""Building blocks for adapters: what every agent framework's adapter does in the same way.

In: a framework's store as `TrackedIndex`es or `VectorFiles`, and its calls. Out: an `Agent` that can be swapped, and
recorded events.
"""

from hins_memory.sdk.addresses import address_in, name_in_process, without_secrets
from hins_memory.sdk.agent_base import AgentBase
from hins_memory.sdk.agents import AgentTable
from hins_memory.sdk.attachment import (
    Attachment,
    BindingComponent,
    OutcomeMethods,
    attached_class,
    attachment_of,
    attachment_to_detach,
    checked_async,
    super_of,
)
from hins_memory.sdk.awaiting import finish
from hins_memory.sdk.binding_agent import Binding
from hins_memory.sdk.captures import join_capture, leave_capture
from hins_memory.sdk.chroma_rows import ChromaRows
from hins_memory.sdk.dual_write import DualWriter, TrackedIndex, WriteTracker
from hins_memory.sdk.embedder import EncoderEmbedder
from hins_memory.sdk.file_groups import FileGroup
from hins_memory.sdk.flat_faiss import keep_places, stored_vectors
from hins_memory.sdk.in_place_agent import InPlaceAgent, LoadedVectors
from hins_memory.sdk.index_base import IndexBase, UnlistedIndex, as_arrays, name_beside
from hins_memory.sdk.json_files import DamagedFileError, read_json, set_aside, write_json
from hins_memory.sdk.keyword_weight import weighted_keywords
from hins_memory.sdk.messages import message_turns
from hins_memory.sdk.object_agent import BesideAgent, ObjectAgent, ObjectPlugin, OwnEncoder
from hins_memory.sdk.opening import check_stock, first_encoder, made_by, record_first, record_framework_encoder, reembed
from hins_memory.sdk.options import AttachOptions, check_embedder, settings_for
from hins_memory.sdk.paging import chunks_of, pages_of
from hins_memory.sdk.plugin import AdapterPlugin, Capability
from hins_memory.sdk.qdrant_rows import QdrantRows
from hins_memory.sdk.ranking import ReplayedRanking
from hins_memory.sdk.recorder import AgentTurn, Recorder
from hins_memory.sdk.retry import with_retries
from hins_memory.sdk.rw_lock import FlipLock
from hins_memory.sdk.shared_folders import SharedFolders, lock_folder
from hins_memory.sdk.store_agent import StoreAgent
from hins_memory.sdk.vector_files import Entry, VectorFiles

__all__ = [
    "AdapterPlugin",
    "AgentBase",
    "AgentTable",
    "AgentTurn",
    "AttachOptions",
    "Attachment",
    "BesideAgent",
    "Binding",
    "BindingComponent",
    "Capability",
    "ChromaRows",
    "DamagedFileError",
    "DualWriter",
    "EncoderEmbedder",
    "Entry",
    "FileGroup",
    "FlipLock",
    "InPlaceAgent",
    "IndexBase",
    "LoadedVectors",
    "ObjectAgent",
    "ObjectPlugin",
    "OutcomeMethods",
    "OwnEncoder",
    "QdrantRows",
    "Recorder",
    "ReplayedRanking",
    "SharedFolders",
    "StoreAgent",
    "TrackedIndex",
    "UnlistedIndex",
    "VectorFiles",
    "WriteTracker",
    "address_in",
    "as_arrays",
    "attached_class",
    "attachment_of",
    "attachment_to_detach",
    "check_embedder",
    "check_stock",
    "checked_async",
    "chunks_of",
    "finish",
    "first_encoder",
    "join_capture",
    "keep_places",
    "leave_capture",
    "lock_folder",
    "made_by",
    "message_turns",
    "name_beside",
    "name_in_process",
    "pages_of",
    "read_json",
    "record_first",
    "record_framework_encoder",
    "reembed",
    "set_aside",
    "settings_for",
    "stored_vectors",
    "super_of",
    "weighted_keywords",
    "with_retries",
    "without_secrets",
    "write_json",
]
