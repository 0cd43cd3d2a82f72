"""`POST /segment`: an image in, and its labels as a PNG, an overlay or runs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from http_servers import Answer, ServerProcess, ask
from PIL import Image
from segmenters import picture

import atrous


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(picture((50, 70), seed=7)).save(path, quality=90)
    return path.read_bytes()


@pytest.fixture(scope="module")
def expected(photo: bytes, tiny: atrous.Segmenter) -> atrous.Result:
    return tiny(Image.open(io.BytesIO(photo)))


def segment(server: ServerProcess, body: bytes, query: str = "?model=tiny", **headers: str) -> Answer:
    return ask(server.port, "POST", f"/segment{query}", body, **headers)


def test_png_is_the_file_that_a_result_saves(
    server: ServerProcess, photo: bytes, expected: atrous.Result, tmp_path
) -> None:
    answer = segment(server, photo)
    expected.save(tmp_path / "labels.png")
    assert answer.status == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.body == (tmp_path / "labels.png").read_bytes()


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_overlay(server: ServerProcess, photo: bytes, expected: atrous.Result, alpha: float | None) -> None:
    answer = segment(server, photo, "?model=tiny&format=overlay" + ("" if alpha is None else f"&alpha={alpha}"))
    with Image.open(io.BytesIO(answer.body)) as found:
        overlay = expected.overlay() if alpha is None else expected.overlay(alpha)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(overlay))


def test_json_has_the_runs_of_each_class(server: ServerProcess, photo: bytes, expected: atrous.Result) -> None:
    found = segment(server, photo, "?model=tiny&format=json").json()
    labels = np.full(found["size"], 255, np.uint8)
    for each in found["segments"]:
        counts = each["segmentation"]["counts"]
        mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(labels.shape[::-1]).T
        assert mask.sum() == each["pixels"]
        assert each["name"] == expected.classes[each["id"]].name
        labels[mask] = each["id"]
    np.testing.assert_array_equal(labels, expected.labels)
    assert {"preprocess", "inference", "postprocess"} <= found["timings_ms"].keys()


def test_with_the_crf(server: ServerProcess, photo: bytes, tiny_crf: atrous.Segmenter) -> None:
    answer = segment(server, photo, "?model=tiny&crf=true&precision=fp32")
    with Image.open(io.BytesIO(answer.body)) as found:
        np.testing.assert_array_equal(np.asarray(found), tiny_crf(Image.open(io.BytesIO(photo))).labels)


def test_says_where_the_time_went(server: ServerProcess, photo: bytes) -> None:
    timing = segment(server, photo, "?model=tiny&crf=1").headers["server-timing"]
    stages = [each.partition(";")[0] for each in timing.split(", ")]
    assert stages == ["receive", "decode", "queue", "preprocess", "inference", "postprocess", "crf", "finish", "encode"]


@pytest.mark.parametrize(
    ("query", "headers", "status", "message"),
    [
        ("", {}, 400, "this server has several models; choose one with ?model=: tiny, color"),
        ("?model=x", {}, 404, "there is no model 'x'"),
        ("?model=tiny&format=tiff", {}, 400, "format must be one of png, overlay, json; got 'tiff'"),
        ("?model=tiny&crf=maybe", {}, 400, "crf must be true or false; got 'maybe'"),
        ("?model=tiny&alpha=nan", {}, 400, "alpha is a share between 0 and 1; got 'nan'"),
        ("?model=tiny&precision=int8", {}, 400, "the parameter precision must be one of fp32"),
        ("?model=tiny&iterations=5", {}, 400, "unknown parameter 'iterations'"),
        ("?model=tiny", {"Content_Type": "multipart/form-data; boundary=x"}, 415, "send the file itself as the body"),
    ],
)
def test_refusals(
    server: ServerProcess, photo: bytes, query: str, headers: dict[str, str], status: int, message: str
) -> None:
    answer = segment(server, photo, query, **headers)
    assert answer.status == status
    assert message in answer.error


def test_an_empty_body_is_no_image(server: ServerProcess) -> None:
    answer = segment(server, b"")
    assert (answer.status, answer.error) == (400, "the file of 0 bytes is not one of JPEG and PNG")
