"""What an encoder's folder may hold: all that the real bases need, and nothing that runs code."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_bases import build_bge_m3, build_qwen3_embedding

from hins_memory.encoders.contents import check_contents, check_kinds, file_names
from hins_memory.encoders.encoder import Encoder, encoder_version, resolve_model
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.errors import EncoderError

# The first bytes of any SentencePiece model: a piece "<unk>" with a score and a type.
SENTENCEPIECE = b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"


def check(folder):
    names = file_names(folder)
    check_kinds(names, "The folder")
    check_contents(folder, names)


def test_the_packaged_base_is_let_in():
    check(Path(resolve_model("stock")))


@pytest.mark.parametrize("build", [build_bge_m3, build_qwen3_embedding])
def test_other_bases_are_let_in_with_all_that_their_tokenizers_have(tmp_path, build):
    folder = build(tmp_path / "base")
    (folder / "sentencepiece.bpe.model").write_bytes(SENTENCEPIECE)
    (folder / "merges.txt").write_text("#version: 0.2\nĠ t\n", encoding="utf-8")
    (folder / "LICENSE").write_text("Apache-2.0")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "vocab.json").write_text('{"trust_remote_code": 1, "\\u0000": 2}')
    check(folder)


@pytest.fixture
def folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "copy")
    return tmp_path / "copy"


KINDS = [
    *("modeling.py", "modeling.pyc", "lib.so", "weights.npz", "weights.npy", "run.sh", "pytorch_model.bin", "a.pt"),
    *("a.PTH", "a.pkl", "model.onnx", "a.h5", "a.ckpt", "a.joblib", "a.dill", "a.exe", "a.zip", "a.pth", "a", "a."),
    *(
        ".hidden.json",
        ".git/config.json/a",
        "a.json.py",
        "A.JSON",
        "adapter_config.json",
        "2_Dense/adapter_config.json",
    ),
]


@pytest.mark.parametrize("name", KINDS)
def test_other_kinds_are_refused_by_name(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")
    with pytest.raises(EncoderError, match=r"may run code|other weights"):
        check(folder)


def changed(name, change):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    damage.__name__ = f"{name}"
    return damage


def written(name, content):
    def damage(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    damage.__name__ = f"{name}"
    return damage


CONTENTS = [
    (written("model.safetensors", pickle.dumps({"a": 1})), "not a safetensors file"),
    (written("extra.safetensors", b""), "not a safetensors file"),
    (written("vocab.txt", pickle.dumps(np.zeros(3))), "not text|decode"),
    (written("extra.txt", b"\x7fELF\x00"), "not text"),
    (written("README.md", b"\xff\xfe"), "decode"),
    (written("tokenizer.json", pickle.dumps({})), "what its name says"),
    (written("tokenizer.json", b"[" * 100_000), "what its name says"),
    (written("spiece.model", pickle.dumps({})), "SentencePiece"),
    (written("spiece.model", b"PK\x03\x04"), "SentencePiece"),
    (written("spiece.model", b""), "SentencePiece"),
    (written("config.json", b'{"a": 1, "a": 2}'), "twice"),
    (written("modules.json", [1, "two"]), "list of modules"),
    (written("modules.json", {"type": "os.system"}), "list of modules"),
    (changed("modules.json", lambda c: c[0].update(type="shutil.rmtree")), "'shutil.rmtree', which is not a module"),
    (changed("modules.json", lambda c: c[0].update(type=5)), "not a module"),
    (changed("modules.json", lambda c: c[0].update(path="../../etc")), "plain relative"),
    (changed("modules.json", lambda c: c[0].update(path="/etc")), "plain relative"),
    (changed("modules.json", lambda c: c[0].pop("path")), "where a module is"),
    (written("router_config.json", {"types": {"query_0": "subprocess.Popen"}}), "'subprocess.Popen', which is not"),
    (written("router_config.json", {"types": ["os.system"]}), "which modules"),
    (written("router_config.json", []), "which modules"),
    (written("1_Words/wordembedding_config.json", {"tokenizer_class": "builtins.eval"}), "'builtins.eval'"),
    (written("2_Dense/config.json", {"activation_function": "os.abort"}), "'os.abort'"),
    (changed("config.json", lambda c: c.update(_attn_implementation="somebody/kernel")), "code from elsewhere"),
    (
        changed("config.json", lambda c: c.update(text={"attn_implementation": "some/kernel"})),
        "code from elsewhere",
    ),
    (written("sentence_bert_config.json", {"model_args": {"trust_remote_code": True}}), "trust_remote_code"),
    (written("sentence_bert_config.json", {"tokenizer_name_or_path": "somebody/tokenizer"}), "outside the folder"),
]


@pytest.mark.parametrize(
    ("damage", "message"), CONTENTS, ids=[f"{n} {d.__name__}" for n, (d, _) in enumerate(CONTENTS)]
)
def test_files_that_are_not_what_their_names_say_or_name_code_are_refused(folder, damage, message):
    check(folder)
    damage(folder)
    with pytest.raises(EncoderError, match=message):
        check(folder)


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds 'adapter_config.json'"),
        (lambda folder: (folder / "extra.json").write_text("{}"), r"holds 'extra\.json', which is not in the manifest"),
        (lambda folder: (folder / ".hidden").write_text("{}"), r"holds '\.hidden'"),
        (lambda folder: (folder / "1_Pooling" / "x.py").write_text("{}"), r"holds '1_Pooling/x\.py'"),
        (lambda folder: (folder / "more").symlink_to("/etc"), "holds 'more'"),
        (lambda folder: (folder / "modules.json").write_text("[]"), r"modules\.json is missing or damaged"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing or damaged"),
        (rename("config.json", "Config.json"), r"config\.json is missing or damaged"),
        (lambda folder: (folder / MANIFEST_NAME).write_text("[]"), "cannot be read: it is not an object"),
        (lambda folder: (folder / MANIFEST_NAME).write_text('{"id": 5}'), "cannot be read: "),
    ],
)
def test_a_version_is_loaded_only_as_it_was_made(tiny_version, change, message):
    assert encoder_version(tiny_version.path) == tiny_version.id
    change(tiny_version.path)
    for load in (encoder_version, Encoder.load):
        with pytest.raises(EncoderError, match=message):
            load(tiny_version.path)


def test_a_manifest_that_is_a_dead_link_does_not_make_a_version_a_plain_folder(tiny_version):
    (tiny_version.path / MANIFEST_NAME).unlink()
    (tiny_version.path / MANIFEST_NAME).symlink_to("nowhere")
    with pytest.raises(EncoderError, match="cannot be read"):
        encoder_version(tiny_version.path)


def test_what_file_managers_leave_is_in_nobodys_way_and_not_taken_over(tiny_version, tmp_path):
    for name in (".DS_Store", "1_Pooling/.DS_Store", "Thumbs.db", "desktop.ini"):
        (tiny_version.path / name).write_bytes(b"\0\1")
    assert Encoder.load(tiny_version.path).version == tiny_version.id
    check(tiny_version.path)
    assert not any("DS_Store" in name for name in file_names(tiny_version.path))
