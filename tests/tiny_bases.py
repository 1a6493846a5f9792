"""Tiny models: with random weights, like BGE-M3 and like Qwen3-Embedding, tokenizers too; and one that knows words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXTS = [
    "What does Ann do on day one? Ann: cello it is. Bo: chess it is, 谢谢 🎻",
    "Instruct: Given a question, find the memory that answers it\nQuery: lunch was cold, pottery and rowing",
]
#: As on Qwen3-Embedding's model card: queries have an instruction, documents none.
INSTRUCTION = "Instruct: Given a question, find the memory that answers it\nQuery:"


def build_bge_m3(folder: Path) -> Path:
    """XLM-RoBERTa, the first token's vector, normalised; a SentencePiece-like unigram tokenizer; 24 dimensions."""
    import torch
    from sentence_transformers.models import Normalize, Pooling
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, core.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", model_max_length=64, **names
    )
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        # Two more than texts are long: positions begin after the padding's.
        max_position_embeddings=66,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Large, so that texts differ before any training.
        initializer_range=0.3,
    )
    return _save(XLMRobertaModel(config), tokenizer, folder, [Pooling(24, "cls"), Normalize()], {})


def build_qwen3_embedding(folder: Path) -> Path:
    """Qwen3 in bfloat16, the last token's vector, normalised; padding left; an instruction for queries; 32 wide."""
    import torch
    from sentence_transformers.models import Normalize, Pooling
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", core.token_to_id("<|endoftext|>"))]
    )
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=end, eos_token=end, padding_side="left", model_max_length=128
    )
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    prompts = {"query": INSTRUCTION, "document": ""}
    model = Qwen3Model(config).to(torch.bfloat16)
    return _save(model, tokenizer, folder, [Pooling(32, "lasttoken"), Normalize()], prompts)


def build_shallow(folder: Path, width: int = 64) -> Path:
    """BERT with one block, over the principal components of the stock encoder's words: it finds what shares words."""
    import copy

    import torch
    from sentence_transformers.models import Normalize, Pooling
    from transformers import BertModel

    from hins_memory.encoders.encoder import Encoder

    stock = Encoder.load().model
    embeddings = stock[0].auto_model.embeddings
    with torch.no_grad():
        # (tokens, 384), as the first block of the stock encoder gets them in the middle of a text
        places = embeddings.position_embeddings.weight.mean(0) + embeddings.token_type_embeddings.weight[0]
        words = embeddings.LayerNorm(embeddings.word_embeddings.weight + places)
        _, directions = torch.linalg.eigh(words.T @ words)
        config = copy.deepcopy(stock[0].auto_model.config)
        config.hidden_size, config.intermediate_size = width, 2 * width
        config.num_hidden_layers, config.num_attention_heads = 1, 2
        # Large, so that few steps of training change what it finds.
        config.initializer_range = 0.1
        torch.manual_seed(1)
        model = BertModel(config)
        model.embeddings.word_embeddings.weight.copy_(words @ directions[:, -width:])
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
    return _save(model, stock.tokenizer, folder, [Pooling(width), Normalize()], {}, max_tokens=stock.max_seq_length)


def _save(
    model: Any,
    tokenizer: Any,
    folder: Path,
    modules: list[Any],
    prompts: dict[str, str],
    max_tokens: int | None = None,
) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Transformer

    raw = folder.with_name(f"{folder.name}-raw")
    model.save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=max_tokens)
    whole = SentenceTransformer(modules=[transformer, *modules], device="cpu", prompts=prompts)
    whole.save(str(folder))
    return folder
