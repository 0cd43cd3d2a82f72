"""What a page of the studio may ask for, and what it gets."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from http_servers import Answer, ask
from PIL import Image
from segmenters import picture
from studio_servers import RunningStudio, studio_in_thread

import atrous
from atrous.bundle import Bundle
from atrous.crf import Compatibility, CRFParams, DenseCRF
from atrous.crf.stored import crf_from_stored, stored_crf
from atrous.manifest_schema import SCHEMA_VERSION
from atrous.serve.limits import Limits
from atrous.serve.refusals import RefusedError
from atrous.serve.studio.kept import KeptImages

API = "/studio/api"
PARAMS = CRFParams(
    bilateral_weight=5.0,
    bilateral_sigma_xy_px=30.0,
    bilateral_sigma_rgb=9.0,
    gaussian_weight=2.0,
    gaussian_sigma_xy_px=1.5,
)
CRF = {"crf": "true", **PARAMS.to_dict(), "iterations": 4}


def read(answer: Answer) -> np.ndarray:
    assert answer.status == 200, answer.body
    return np.asarray(Image.open(io.BytesIO(answer.body)))


def get(running: RunningStudio, image_id: str, kind: str, **query: object) -> Answer:
    return ask(running.port, "GET", f"{API}/images/{image_id}/{kind}?{urlencode({'precision': 'fp32', **query})}")


@pytest.fixture(scope="module")
def image_id(studio: RunningStudio, photo: Path) -> str:
    answer = ask(studio.port, "POST", f"{API}/images", photo.read_bytes())
    assert answer.status == 201
    about = answer.json()
    assert (about["height"], about["width"]) == (200, 256)
    return about["id"]


class TestPage:
    def test_brings_a_policy_that_keeps_everything_else_out(self, studio: RunningStudio) -> None:
        answer = ask(studio.port, "GET", "/")
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        page = answer.body.decode()
        assert "<style" not in page
        assert " style=" not in page
        scripts = re.findall("<script[^>]*>[^<]*<", page)
        assert len(scripts) == 2
        assert all(re.fullmatch(r'<script (type="module" )?src="/studio/[a-z]+\.js"><', each) for each in scripts)

    def test_is_not_sent_again(self, studio: RunningStudio) -> None:
        first = ask(studio.port, "GET", "/studio/main.js")
        again = ask(studio.port, "GET", "/studio/main.js", If_None_Match=first.headers["etag"])
        assert (first.status, again.status, again.body) == (200, 304, b"")
        assert first.headers["content-type"].startswith("text/javascript")

    def test_says_what_there_is(self, studio: RunningStudio, two_precisions: Bundle) -> None:
        config = ask(studio.port, "GET", f"{API}/config").json()
        assert config["precisions"] == ["fp32", "int8"]
        assert config["bundle"] == str(two_precisions.path)
        assert [each["name"] for each in config["classes"]] == [each.name for each in two_precisions.manifest.classes]
        assert config["crf"] == {"params": CRFParams.deeplab_v2_resnet().to_dict(), "iterations": 10}
        assert not config["writable"]


class TestLabels:
    def test_are_those_of_the_segmenter(self, studio: RunningStudio, image_id: str, labels: np.ndarray) -> None:
        np.testing.assert_array_equal(read(get(studio, image_id, "labels")), labels)

    def test_are_the_file_that_a_result_writes(
        self, studio: RunningStudio, image_id: str, segmenter: atrous.Segmenter, photo: Path, tmp_path: Path
    ) -> None:
        segmenter(photo).save(tmp_path / "labels.png")
        assert get(studio, image_id, "labels").body == (tmp_path / "labels.png").read_bytes()

    def test_of_the_crf_are_those_of_the_segmenter(
        self, studio: RunningStudio, image_id: str, two_precisions: Bundle, photo: Path
    ) -> None:
        crf = DenseCRF(PARAMS, iterations=4, threads=1)
        expected = atrous.load(two_precisions, backend="onnxruntime", precision="int8", crf=crf, threads=1)(photo)
        answer = get(studio, image_id, "labels", **CRF | {"precision": "int8"})
        np.testing.assert_array_equal(read(answer), expected.labels)
        assert answer.headers["x-atrous-step"] == "1"
        assert all(stage in answer.headers["server-timing"] for stage in ("inference;dur=", "crf;dur=", "encode;dur="))
        confidence = read(get(studio, image_id, "confidence", **CRF | {"precision": "int8"}))
        np.testing.assert_array_equal(confidence, np.rint(expected.probabilities.max(axis=0) * 255))

    def test_of_a_preview_are_like_those_of_the_image(self, studio: RunningStudio, image_id: str) -> None:
        params = CRF | {"bilateral_weight": 6.0}
        preview = get(studio, image_id, "labels", preview="true", **params)
        step = int(preview.headers["x-atrous-step"])
        assert step == 2
        coarse, whole = read(preview), read(get(studio, image_id, "labels", **params))
        assert coarse.shape == (100, 128)
        chosen = whole[step // 2 :: step, step // 2 :: step]
        plain = read(get(studio, image_id, "labels"))[step // 2 :: step, step // 2 :: step]
        assert np.mean(coarse == chosen) > 0.9 > np.mean(plain == chosen)
        # What was refined already needs no preview.
        assert get(studio, image_id, "labels", preview="true", **params).headers["x-atrous-step"] == "1"

    def test_of_a_small_image_have_no_preview(self, studio: RunningStudio) -> None:
        file = io.BytesIO()
        Image.fromarray(picture((40, 50))).save(file, "PNG")
        image_id = ask(studio.port, "POST", f"{API}/images", file.getvalue()).json()["id"]
        assert get(studio, image_id, "labels", preview="true", **CRF).headers["x-atrous-step"] == "1"

    def test_come_with_a_confidence(
        self, studio: RunningStudio, image_id: str, segmenter: atrous.Segmenter, photo: Path
    ) -> None:
        expected = np.rint(segmenter(photo).probabilities.max(axis=0) * 255)
        np.testing.assert_array_equal(read(get(studio, image_id, "confidence")), expected)

    def test_lie_on_the_picture(self, studio: RunningStudio, image_id: str, photo: Path) -> None:
        np.testing.assert_array_equal(read(get(studio, image_id, "picture")), np.asarray(Image.open(photo)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"precision": "fp8"}, "precision must be one of fp32, int8"),
            ({"crf": "maybe"}, "crf must be true or false"),
            ({"crf": "true"}, "missing CRF parameters: bilateral_sigma_rgb"),
            (CRF | {"gamma": 1}, "unknown CRF parameters: gamma"),
            (CRF | {"iterations": 101}, "iterations must be a whole number from 0 to 100; got 101"),
            (CRF | {"iterations": 1.5}, "iterations must be a whole number"),
            (CRF | {"bilateral_weight": "heavy"}, "bilateral_weight must be a finite number; got 'heavy'"),
            (CRF | {"bilateral_sigma_rgb": "nan"}, "bilateral_sigma_rgb must be a finite number; got 'nan'"),
            (CRF | {"gaussian_sigma_xy_px": 0}, "gaussian_sigma_xy_px is a standard deviation and must be positive"),
            (CRF | {"gaussian_sigma_xy_px": 1e-9}, "too small"),
        ],
    )
    def test_of_a_wrong_view(
        self, studio: RunningStudio, image_id: str, query: dict[str, object], message: str
    ) -> None:
        answer = get(studio, image_id, "labels", **query)
        assert answer.status == 400
        assert message in answer.error

    def test_without_a_precision(self, studio: RunningStudio, image_id: str) -> None:
        answer = ask(studio.port, "GET", f"{API}/images/{image_id}/labels")
        assert (answer.status, "the query has no precision" in answer.error) == (400, True)

    def test_of_an_unknown_image(self, studio: RunningStudio) -> None:
        answer = get(studio, "0" * 24, "labels")
        assert (answer.status, answer.error) == (404, "this image is not kept any longer; send it again")

    def test_of_what_is_no_image(self, studio: RunningStudio) -> None:
        answer = ask(studio.port, "POST", f"{API}/images", b"GIF89a")
        assert (answer.status, answer.error) == (400, "the file of 6 bytes is not one of JPEG and PNG")

    def test_of_too_many_pixels(self, studio: RunningStudio) -> None:
        file = io.BytesIO()
        Image.new("RGB", (1000, 101)).save(file, "PNG")
        answer = ask(studio.port, "POST", f"{API}/images", file.getvalue())
        assert (answer.status, answer.error) == (413, "the image has 101×1000 pixels, of at most 100000")

    def test_of_probabilities_that_do_not_fit(self, two_precisions: Bundle, photo: Path) -> None:
        with studio_in_thread(two_precisions.path, limits=Limits(probability_bytes=1000)) as running:
            image_id = ask(running.port, "POST", f"{API}/images", photo.read_bytes()).json()["id"]
            answer = get(running, image_id, "labels", **CRF)
            assert answer.status == 413
            assert "the probabilities of 5 classes at 200×256 take 1024000 bytes" in answer.error

    def test_of_writing_unless_it_is_allowed(self, studio: RunningStudio, two_precisions: Bundle) -> None:
        answer = ask(studio.port, "PUT", f"{API}/crf", json.dumps(PARAMS.to_dict()).encode())
        assert (answer.status, answer.error) == (403, "this studio does not change its bundle; start it with --write")
        assert Bundle.open(two_precisions.path).manifest == two_precisions.manifest

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://example.com"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Host": "rebound.example.com:80"},
        ],
    )
    def test_of_other_sites(self, studio: RunningStudio, headers: dict[str, str]) -> None:
        assert ask(studio.port, "GET", f"{API}/config", **headers).status == 403

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
    def test_not_of_its_own_names(self, studio: RunningStudio, host: str) -> None:
        name = f"{host}:{studio.port}"
        assert ask(studio.port, "GET", f"{API}/config", Host=name, Origin=f"http://{name}").status == 200

    def test_of_whoever_has_no_token(self, tiny_bundle: Bundle) -> None:
        with studio_in_thread(tiny_bundle.path, token="secret", is_local=False) as running:
            assert ask(running.port, "GET", "/").status == 200
            assert ask(running.port, "GET", "/studio/studio.css").status == 200
            assert ask(running.port, "GET", f"{API}/config").status == 401
            token = {"Authorization": "Bearer secret", "Host": "studio.example.com"}
            assert ask(running.port, "GET", f"{API}/config", **token).status == 200


def test_parameters_are_written_into_the_bundle(tiny_bundle: Bundle, photo: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle.path, tmp_path / "tuned.atrous")
    with studio_in_thread(copy, writable=True) as running:
        image_id = ask(running.port, "POST", f"{API}/images", photo.read_bytes()).json()["id"]
        get(running, image_id, "labels")
        answer = ask(running.port, "PUT", f"{API}/crf", json.dumps(PARAMS.to_dict() | {"iterations": 4}).encode())
        assert answer.status == 200, answer.body
        assert answer.json()["crf"] == {"params": PARAMS.to_dict(), "iterations": 4}
        assert ask(running.port, "PUT", f"{API}/crf", b'{"bilateral_weight": 1}').status == 400
        refined = ask(running.port, "POST", "/segment?crf=true", photo.read_bytes())
    bundle = Bundle.open(copy)
    assert bundle.manifest.crf == stored_crf(PARAMS, 4)
    expected = atrous.load(bundle, backend="onnxruntime", crf=True, threads=1)(photo)
    np.testing.assert_array_equal(read(refined), expected.labels)


def test_what_a_bundle_has_learned_of_its_classes_stays(tiny_bundle: Bundle, photo: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle.path, tmp_path / "learned.atrous"))
    classes = len(tiny_bundle.manifest.classes)
    factors = [0.5 + index for index in range(classes)]
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["crf"] = stored_crf(PARAMS, 7, Compatibility(bilateral=factors, gaussian=factors[::-1]))
    manifest["schema_version"] = SCHEMA_VERSION
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with studio_in_thread(copy, writable=True) as running:
        image_id = ask(running.port, "POST", f"{API}/images", photo.read_bytes()).json()["id"]
        found = read(get(running, image_id, "labels", precision="fp32", **PARAMS.to_dict(), iterations=7, crf="true"))
        ask(running.port, "PUT", f"{API}/crf", json.dumps(PARAMS.to_dict() | {"iterations": 3}).encode())
    expected = atrous.load(tiny_bundle.path, crf=crf_from_stored(manifest["crf"]), threads=1)(photo)
    np.testing.assert_array_equal(found, expected.labels)
    assert Bundle.open(copy).manifest.crf == {**manifest["crf"], "iterations": 3}


def test_what_nobody_waits_for_is_left_out(studio: RunningStudio, image_id: str) -> None:
    lane = studio.studio._refinements
    free = threading.Event()
    blocking = lane.submit(free.wait)
    query = urlencode({"precision": "fp32", **CRF, "bilateral_weight": 7.5})
    with socket.create_connection(("127.0.0.1", studio.port)) as client:
        client.sendall(f"GET {API}/images/{image_id}/labels?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: lane._waiting == 2)
    try:
        wait_until(lambda: lane._waiting == 1)
    finally:
        free.set()
    assert blocking.result()


def wait_until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestKeptImages:
    PIXELS = np.zeros((10, 10, 3), np.uint8)

    def test_are_those_used_last(self) -> None:
        images = KeptImages(most_bytes=700)
        first, second = images.add(self.PIXELS), images.add(self.PIXELS)
        assert images.find(first.image_id) is first
        images.add(self.PIXELS)
        assert images.nbytes == 600
        assert images.find(first.image_id) is first
        with pytest.raises(RefusedError, match="not kept any longer"):
            images.find(second.image_id)

    def test_that_fill_the_memory_alone_stay(self) -> None:
        images = KeptImages(most_bytes=1)
        images.add(self.PIXELS)
        only = images.add(self.PIXELS)
        assert len(images) == 1
        assert images.find(only.image_id) is only
