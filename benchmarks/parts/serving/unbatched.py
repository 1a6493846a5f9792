"""What people write who need an endpoint: sentence-transformers behind FastAPI, each request on its own.

python benchmarks/parts/serving/unbatched.py MODEL_FOLDER PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

app = FastAPI()
model: SentenceTransformer


# A plain function: FastAPI runs it in a thread, so that the server answers others meanwhile.
@app.post("/v1/embeddings")
def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Embed the texts of one request."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = model.encode(texts, normalize_embeddings=True)
    data = [{"object": "embedding", "index": row, "embedding": one.tolist()} for row, one in enumerate(vectors)]
    return {"object": "list", "model": body["model"], "data": data}


if __name__ == "__main__":
    model = SentenceTransformer(sys.argv[1], device="cpu")
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
