"""Where bytes live: immutable objects by digest, and small named refs that change by compare-and-swap."""

from kaos.store.base import Condemned, Objects, Ref, Refs, Store, Stored, Uses, change_ref, identity
from kaos.store.file import FileObjects, FileRefs, open_file_store
from kaos.store.location import open_store
from kaos.store.memory import MemoryObjects, MemoryRefs, memory_store

__all__ = [
    "Condemned",
    "FileObjects",
    "FileRefs",
    "MemoryObjects",
    "MemoryRefs",
    "Objects",
    "Ref",
    "Refs",
    "Store",
    "Stored",
    "Uses",
    "change_ref",
    "identity",
    "memory_store",
    "open_file_store",
    "open_store",
]
