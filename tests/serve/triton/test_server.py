"""Models on a real tritonserver: the labels are those of a segmenter, and errors are the protocol's."""

from __future__ import annotations

import io
import json
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
from band_bundles import FLOATS, INFRARED, scene
from PIL import Image
from segmenters import picture
from triton_models import FLAVOURS, MAX_BATCH, QUEUE, Served, infer, outputs, tensor
from tritonclient import http
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow  # whichever comes first builds the backend and starts the server

SIZE = (50, 70)
both = pytest.mark.parametrize("flavour", FLAVOURS)


def statistics(client: http.InferenceServerClient, model: str) -> dict:
    (found,) = client.get_inference_statistics(model)["model_stats"]
    return found


def encoded(image: np.ndarray, **options: object) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, **{"format": "PNG", **options})
    return np.frombuffer(file.getvalue(), np.uint8)


@both
class TestLabels:
    @pytest.mark.parametrize("size", [SIZE, (1, 1), (128, 128), (200, 150)])
    def test_are_those_of_a_segmenter(self, client, served: Served, flavour: str, size: tuple[int, int]) -> None:
        for seed in range(3):
            image = picture(size, seed)
            (labels,) = infer(client, f"{flavour}_tiny", image, "LABELS")
            np.testing.assert_array_equal(labels, served.segmenter("tiny")(image).labels, strict=True)

    def test_of_numbers_in_json(self, client, served: Served, flavour: str) -> None:
        image = picture((9, 7))
        answer = client.infer(
            f"{flavour}_tiny",
            [tensor(image, binary=False)],
            outputs=[http.InferRequestedOutput("LABELS", binary_data=False)],
        )
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), served.segmenter("tiny")(image).labels)

    def test_of_300_classes_and_other_bands(self, client, served: Served, flavour: str) -> None:
        image = scene(INFRARED, SIZE)
        labels, confidence = infer(client, f"{flavour}_many", image, "LABELS", "CONFIDENCE")
        expected = served.segmenter("many")(image)
        np.testing.assert_array_equal(labels, expected.labels, strict=True)
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(confidence, np.rint(expected.probabilities.max(axis=0) * 255))

    def test_of_images_in_a_batch(self, client, served: Served, flavour: str) -> None:
        images = np.stack([picture(SIZE, seed) for seed in range(3)])
        labels, probabilities = infer(client, f"{flavour}_batched", images, "LABELS", "PROBABILITIES")
        expected = served.segmenter("tiny").batch(list(images))
        np.testing.assert_array_equal(labels, [each.labels for each in expected])
        np.testing.assert_array_equal(probabilities, [each.probabilities for each in expected])

    def test_of_requests_that_were_joined(self, client, served: Served, flavour: str) -> None:
        model, count = f"{flavour}_batched", 2 * MAX_BATCH
        before = statistics(client, model)["execution_count"]
        images = [picture(SIZE, seed)[np.newaxis] for seed in range(count)]
        waiting = [client.async_infer(model, [tensor(each)], outputs=outputs("LABELS")) for each in images]
        segment = served.segmenter("tiny")
        for image, request in zip(images, waiting, strict=True):
            np.testing.assert_array_equal(request.get_result().as_numpy("LABELS")[0], segment(image[0]).labels)
        assert statistics(client, model)["execution_count"] - before < count
        assert any(int(each["batch_size"]) > 1 for each in statistics(client, model)["batch_stats"])


@both
class TestOutputs:
    def test_all_at_once(self, client, served: Served, flavour: str) -> None:
        image = picture(SIZE, 5)
        labels, confidence, probabilities = infer(
            client, f"{flavour}_tiny", image, "LABELS", "CONFIDENCE", "PROBABILITIES"
        )
        expected = served.segmenter("tiny")(image)
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_array_equal(probabilities, expected.probabilities, strict=True)
        np.testing.assert_array_equal(confidence, np.rint(expected.probabilities.max(axis=0) * 255))
        assert confidence.dtype == np.uint8

    @pytest.mark.parametrize("name", ["LABELS", "CONFIDENCE", "PROBABILITIES"])
    def test_alone(self, client, flavour: str, name: str) -> None:
        answer = client.infer(f"{flavour}_tiny", [tensor(picture(SIZE))], outputs=outputs(name), request_id="a-1")
        assert [each["name"] for each in answer.get_response()["outputs"]] == [name]
        assert answer.get_response()["id"] == "a-1"


class TestEncoded:
    @pytest.mark.parametrize("options", [{}, {"format": "JPEG", "quality": 80}], ids=["png", "jpeg"])
    def test_files_are_read_as_by_a_segmenter(self, client, served: Served, tmp_path, options) -> None:
        data = encoded(picture(SIZE), **options)
        (tmp_path / "image").write_bytes(data.tobytes())
        answer = client.infer("python_tiny", [tensor(data, "ENCODED")], outputs=outputs("LABELS"))
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), served.segmenter("tiny")(tmp_path / "image").labels)

    def test_a_turned_jpeg_is_upright(self, client) -> None:
        turned = Image.Exif()
        turned[0x0112] = 6
        data = encoded(picture(SIZE), format="JPEG", exif=turned)
        answer = client.infer("python_tiny", [tensor(data, "ENCODED")], outputs=outputs("LABELS"))
        assert answer.as_numpy("LABELS").shape == SIZE[::-1]

    def test_in_a_batch(self, client, served: Served) -> None:
        image = picture(SIZE, 2)
        answer = client.infer("python_batched", [tensor(encoded(image)[np.newaxis], "ENCODED")])
        np.testing.assert_array_equal(answer.as_numpy("LABELS")[0], served.segmenter("tiny")(image).labels)

    def test_what_is_no_picture(self, client) -> None:
        data = np.frombuffer(b"GIF89a, and then nothing", np.uint8)
        with pytest.raises(InferenceServerException, match=r"ENCODED of 24 bytes is no JPEG and no PNG") as caught:
            client.infer("python_tiny", [tensor(data, "ENCODED")])
        assert caught.value.status() == "400"

    def test_a_damaged_picture(self, client) -> None:
        with pytest.raises(InferenceServerException, match=r"\[400\].*truncated"):
            client.infer("python_tiny", [tensor(encoded(picture(SIZE))[:300].copy(), "ENCODED")])

    def test_not_both_and_not_neither(self, client) -> None:
        image = picture((16, 16))
        with pytest.raises(InferenceServerException, match=r"expected one input, IMAGE or ENCODED; got .*, "):
            client.infer("python_tiny", [tensor(image), tensor(encoded(image), "ENCODED")])


@both
class TestErrors:
    def refused(self, client, model: str, inputs: list, status: str, words: str, **options: object) -> None:
        with pytest.raises(InferenceServerException, match=words) as caught:
            client.infer(model, inputs, **options)
        assert caught.value.status() == status
        assert client.is_model_ready(model) or status == "404"

    def test_wrong_dtype(self, client, flavour: str) -> None:
        image = picture((16, 16)).astype(np.float32)
        self.refused(client, f"{flavour}_tiny", [tensor(image)], "400", "IMAGE.* data-type .*FP32.*UINT8|UINT8.*FP32")

    @pytest.mark.parametrize("shape", [(16, 16), (16, 16, 4), (1, 16, 16, 3), (0, 16, 3)])
    def test_wrong_shapes(self, client, flavour: str, shape: tuple[int, ...]) -> None:
        self.refused(client, f"{flavour}_tiny", [tensor(np.zeros(shape, np.uint8))], "400", "IMAGE")

    def test_a_batch_that_is_too_large(self, client, flavour: str) -> None:
        images = np.zeros((MAX_BATCH + 1, 16, 16, 3), np.uint8)
        self.refused(client, f"{flavour}_batched", [tensor(images)], "400", f"must be <= {MAX_BATCH}")

    def test_unknown_names(self, client, flavour: str) -> None:
        image = [tensor(picture((16, 16)))]
        self.refused(client, "missing", image, "404", "unknown model: 'missing'")
        self.refused(client, f"{flavour}_tiny", image, "404", "version 7", model_version="7")
        self.refused(client, f"{flavour}_tiny", image, "400", "MASKS", outputs=outputs("MASKS"))
        self.refused(client, f"{flavour}_tiny", [tensor(picture((16, 16)), "PIXELS")], "400", "PIXELS")

    # What is no JSON, Triton itself calls an error of its own.
    @pytest.mark.parametrize(
        ("body", "status"),
        [(b"", 400), (b"{", 500), (b'{"inputs": 3}', 500), (b'{"inputs": [{"name": "IMAGE"}]}', 400)],
    )
    def test_malformed_requests(self, served: Served, flavour: str, body: bytes, status: int) -> None:
        url = f"http://127.0.0.1:{served.server.port}/v2/models/{flavour}_tiny/infer"
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(url, body):
            pass
        assert caught.value.code == status
        assert json.loads(caught.value.read())["error"]

    def test_lying_sizes(self, served: Served, flavour: str) -> None:
        header = {"name": "IMAGE", "datatype": "UINT8", "shape": [4000, 4000, 3], "parameters": {"binary_data_size": 9}}
        text = json.dumps({"inputs": [header]}).encode()
        url = f"http://127.0.0.1:{served.server.port}/v2/models/{flavour}_tiny/infer"
        request = urllib.request.Request(url, text + bytes(9), {"Inference-Header-Content-Length": str(len(text))})
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request):
            pass
        assert caught.value.code == 400
        assert "9" in json.loads(caught.value.read())["error"]


class TestModels:
    def test_all_are_ready(self, client) -> None:
        assert client.is_server_ready()
        index = client.get_model_repository_index()
        assert {each["name"].partition("_")[0] for each in index} == set(FLAVOURS)
        assert {each["state"] for each in index} == {"READY"}

    @both
    def test_metadata_is_the_bundles(self, client, served: Served, flavour: str) -> None:
        metadata = client.get_model_metadata(f"{flavour}_many")
        shapes = {each["name"]: (each["datatype"], each["shape"]) for each in metadata["outputs"]}
        assert shapes["LABELS"] == ("UINT16", [-1, -1])
        assert shapes["PROBABILITIES"] == ("FP32", [300, -1, -1])
        assert (metadata["inputs"][0]["name"], metadata["inputs"][0]["shape"]) == ("IMAGE", [-1, -1, 4])
        parameters = client.get_model_config(f"{flavour}_many")["parameters"]
        classes = json.loads(parameters["classes"]["string_value"])
        assert [each["name"] for each in classes] == [each.name for each in served.bundles["many"].manifest.classes]

    def test_of_two_bundles_have_their_own_labels(self, client) -> None:
        red = np.zeros((16, 16, 3), np.uint8)
        red[..., 2] = 255
        assert (infer(client, "cpp_color", red, "LABELS")[0] == 2).all()

    def test_floats_at_any_address(self, client, served: Served) -> None:
        image = scene(FLOATS, SIZE)
        for length in range(1, 5):  # of the JSON, behind which the values begin
            answer = client.infer("cpp_floats", [tensor(image)], outputs=outputs("LABELS"), request_id="x" * length)
            np.testing.assert_array_equal(answer.as_numpy("LABELS"), served.segmenter("floats")(image).labels)


class TestServing:
    def test_the_crf_and_the_response_cache(self, client, served: Served) -> None:
        image = picture(SIZE, 7)
        expected = served.segmenter("tiny", crf=True)(image)
        assert (expected.labels != served.segmenter("tiny")(image).labels).any()
        before = statistics(client, "cpp_refined")
        for _ in range(3):
            labels, probabilities = infer(client, "cpp_refined", image, "LABELS", "PROBABILITIES")
            np.testing.assert_array_equal(labels, expected.labels)
            np.testing.assert_array_equal(probabilities, expected.probabilities)
        after = statistics(client, "cpp_refined")
        assert int(after["execution_count"]) - int(before["execution_count"]) == 1
        hits = [int(each["inference_stats"]["cache_hit"]["count"]) for each in (before, after)]
        assert hits[1] - hits[0] == 2

    def test_warm_up_ran_before_anyone_asked(self, served: Served) -> None:
        log = served.server.log.read_text(encoding="utf-8")
        before, _, _ = log.partition("successfully loaded 'cpp_refined'")
        assert set(re.findall(r"'cpp_refined'.* is running warmup sample '(.+)'", before)) == {"40x48", "64x96"}

    def test_a_full_queue_refuses(self, client, served: Served) -> None:
        image = picture((128, 128))
        waiting = [
            client.async_infer("cpp_narrow", [tensor(image)], outputs=outputs("LABELS")) for _ in range(8 * QUEUE)
        ]
        expected, answered, refused = served.segmenter("tiny", crf=True)(image).labels, 0, []
        for request in waiting:
            try:
                np.testing.assert_array_equal(request.get_result().as_numpy("LABELS"), expected)
                answered += 1
            except InferenceServerException as exc:
                refused.append((exc.status(), exc.message()))
        assert answered > QUEUE
        assert refused
        assert {status for status, _ in refused} == {"503"}
        assert "Exceeds maximum queue size" in refused[0][1]

    @both
    def test_statistics_count_and_time(self, client, flavour: str) -> None:
        before = statistics(client, f"{flavour}_tiny")["inference_stats"]
        infer(client, f"{flavour}_tiny", picture(SIZE), "LABELS")
        after = statistics(client, f"{flavour}_tiny")["inference_stats"]
        assert after["success"]["count"] - before["success"]["count"] == 1
        assert after["compute_infer"]["ns"] > before["compute_infer"]["ns"]

    def test_statistics_count_failures(self, client) -> None:
        """In C++; Triton's Python backend calls a request that it answers with an error a success."""
        before = statistics(client, "cpp_tiny")["inference_stats"]
        with pytest.raises(InferenceServerException):
            infer(client, "cpp_tiny", np.zeros((0, 5, 3), np.uint8), "LABELS")
        after = statistics(client, "cpp_tiny")["inference_stats"]
        assert after["fail"]["count"] - before["fail"]["count"] == 1
        assert after["success"] == before["success"]
