"""A handler around ONNX Runtime as people write it, with FastAPI: the peer of `bench_serve.py`.

    python benchmarks/fastapi_peer.py MODEL.onnx PORT

It takes the demo's photos at the network's size, and answers with a PNG of class ids.
"""

from __future__ import annotations

import io
import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, File, Response
from PIL import Image

app = FastAPI()
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
mean = np.array([0.485, 0.456, 0.406], np.float32)
std = np.array([0.229, 0.224, 0.225], np.float32)


@app.post("/predict")
def predict(file: bytes = File()) -> Response:
    """Labels of an uploaded picture."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    pixels = (np.asarray(image, np.float32) / 255 - mean) / std
    (logits,) = session.run(None, {session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[None]})
    maps = [Image.fromarray(each).resize(image.size, Image.Resampling.BILINEAR) for each in logits[0]]
    labels = np.argmax([np.asarray(each) for each in maps], axis=0).astype(np.uint8)
    answer = io.BytesIO()
    Image.fromarray(labels).save(answer, "PNG")
    return Response(answer.getvalue(), media_type="image/png")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
