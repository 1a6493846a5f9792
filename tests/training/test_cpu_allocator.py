"""Kept memory and the plain attention: in force within the block, gone after it, and never against the environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from hins_memory.training.fit.cpu_allocator import fast_cpu_training, keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"
ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

# Page faults of taking and freeing 48 MiB ten times: before, within, within a nested block's end, and the memory after.
FAULTS = """
import ctypes, resource
from hins_memory.training.fit.cpu_allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = libc.malloc(48 << 20)
        ctypes.memset(block, 1, 48 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()

print(faults())
with keep_freed_memory() as outer:
    with keep_freed_memory():
        faults()
    print(faults())
    held = resident()
print(held - resident())
print(outer)
"""


def run(environment: dict[str, str]) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ALLOCATOR)}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not (GLIBC and os.path.exists("/proc/self/statm")), reason="glibc on Linux only")
@pytest.mark.slow
def test_freed_memory_is_kept_within_and_handed_back_after():
    before, within, handed_back, in_force = run({})
    assert in_force == "True"
    assert int(within) * 4 < int(before)
    assert int(handed_back) > 40 << 20


@pytest.mark.slow
def test_what_the_environment_says_is_left_alone():
    assert run({"MALLOC_MMAP_THRESHOLD_": "65536"})[-1] == "False"
    assert run({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=65536"})[-1] == "False"


def test_the_plain_attention_holds_within_for_short_texts_on_a_cpu_only(tiny_folder):
    from sentence_transformers import SentenceTransformer

    def fused() -> bool:
        return torch.backends.cuda.flash_sdp_enabled()

    model = SentenceTransformer(str(tiny_folder), device="cpu")
    assert fused()
    for tokens, expected in ((64, False), (512, False), (8192, True)):
        model.max_seq_length = tokens
        with fast_cpu_training(model):
            assert fused() is expected
        assert fused()
    with pytest.raises(ValueError, match="cut"), fast_cpu_training(model):
        raise ValueError("cut")
    assert fused()


def test_both_attentions_give_the_same_vectors(tiny_folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_folder), device="cpu").eval()
    model.max_seq_length = 64
    texts = ["a", "a much longer text " * 20, "谁在弹大提琴？ 🎻", ""]
    expected = model.encode(texts)
    with fast_cpu_training(model):
        assert abs(model.encode(texts) - expected).max() < 1e-5


@pytest.mark.skipif(not GLIBC, reason="glibc only")
def test_an_exception_within_ends_it_too(monkeypatch):
    from hins_memory.training.fit import cpu_allocator

    for name in list(os.environ):
        if name.startswith(ALLOCATOR):
            monkeypatch.delenv(name)

    def interrupted() -> None:
        with keep_freed_memory() as in_force:
            assert in_force
            assert cpu_allocator._users == 1
            raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        interrupted()
    assert cpu_allocator._users == 0
