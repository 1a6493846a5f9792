"""An encoder version as an ONNX graph, for processes that only embed: faster for one text at a time, and without torch.

In: an encoder with the modules of sentence-transformers. Out: a folder with the graph, the tokenizer, and a record of
what they are; `OnnxEncoder` embeds with it.
"""
