"""Triton's own client against `atrous serve`: the labels are those of a segmenter, and errors are the protocol's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from http_servers import ServerProcess
from PIL import Image
from segmenters import picture
from tritonclient import http
from tritonclient.utils import InferenceServerException

import atrous

SIZE = (50, 70)


@pytest.fixture(scope="module")
def client(server: ServerProcess):
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def image_input(image: np.ndarray, *, binary: bool = True) -> http.InferInput:
    made = http.InferInput("IMAGE", image.shape, "UINT8")
    made.set_data_from_numpy(image, binary_data=binary)
    return made


def png_of(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


class TestLabels:
    @pytest.mark.parametrize("size", [SIZE, (1, 1), (128, 128), (200, 150)])
    def test_are_those_of_a_segmenter(self, client, tiny: atrous.Segmenter, size: tuple[int, int]) -> None:
        image = picture(size)
        answer = client.infer("tiny", [image_input(image)])
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), tiny(image).labels)

    @pytest.mark.parametrize("binary", [False, True])
    def test_in_json_and_in_bytes(self, client, tiny: atrous.Segmenter, binary: bool) -> None:
        image = picture(SIZE, seed=1)
        outputs = [http.InferRequestedOutput("LABELS", binary_data=binary)]
        answer = client.infer("tiny", [image_input(image, binary=binary)], outputs=outputs, request_id="a-1")
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), tiny(image).labels)
        assert answer.get_response()["id"] == "a-1"
        assert ("data" in answer.get_output("LABELS")) is not binary

    def test_of_a_model_by_its_name_and_version(self, client) -> None:
        red = np.zeros((16, 16, 3), np.uint8)
        red[..., 0] = 255
        answer = client.infer("color", [image_input(red)], model_version="1")
        assert not answer.as_numpy("LABELS").any()
        assert (answer.get_response()["model_name"], answer.get_response()["model_version"]) == ("color", "1")

    def test_of_a_png_in_bytes(self, client, tiny: atrous.Segmenter) -> None:
        image = picture(SIZE, seed=2)
        data = np.frombuffer(png_of(image), np.uint8)
        encoded = http.InferInput("ENCODED", data.shape, "UINT8")
        encoded.set_data_from_numpy(data)
        labels = client.infer("tiny", [encoded]).as_numpy("LABELS")
        np.testing.assert_array_equal(labels, tiny(image).labels)

    def test_of_a_png_as_a_string(self, client, tiny: atrous.Segmenter) -> None:
        image = picture(SIZE, seed=3)
        encoded = http.InferInput("ENCODED", [1], "BYTES")
        encoded.set_data_from_numpy(np.array([png_of(image)], object))
        labels = client.infer("tiny", [encoded]).as_numpy("LABELS")
        np.testing.assert_array_equal(labels, tiny(image).labels)

    def test_of_a_turned_jpeg_are_upright(self, client, tiny: atrous.Segmenter, tmp_path) -> None:
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(picture(SIZE, seed=4)).save(tmp_path / "photo.jpg", exif=turned)
        data = np.frombuffer((tmp_path / "photo.jpg").read_bytes(), np.uint8)
        encoded = http.InferInput("ENCODED", data.shape, "UINT8")
        encoded.set_data_from_numpy(data)
        labels = client.infer("tiny", [encoded]).as_numpy("LABELS")
        assert labels.shape == SIZE[::-1]
        np.testing.assert_array_equal(labels, tiny(tmp_path / "photo.jpg").labels)


class TestOutputs:
    def test_all_at_once(self, client, tiny: atrous.Segmenter) -> None:
        image = picture(SIZE, seed=5)
        names = ("CONFIDENCE", "LABELS", "PROBABILITIES")
        answer = client.infer("tiny", [image_input(image)], outputs=[http.InferRequestedOutput(name) for name in names])
        expected = tiny(image)
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), expected.labels)
        np.testing.assert_array_equal(answer.as_numpy("PROBABILITIES"), expected.probabilities)
        confidence = np.rint(expected.probabilities.max(axis=0) * 255)
        assert answer.as_numpy("CONFIDENCE").dtype == np.uint8
        np.testing.assert_array_equal(answer.as_numpy("CONFIDENCE"), confidence)
        assert [each["name"] for each in answer.get_response()["outputs"]] == list(names)

    def test_probabilities_in_json(self, client, tiny: atrous.Segmenter) -> None:
        image = picture((9, 7))
        outputs = [http.InferRequestedOutput("PROBABILITIES", binary_data=False)]
        answer = client.infer("tiny", [image_input(image)], outputs=outputs)
        np.testing.assert_array_equal(answer.as_numpy("PROBABILITIES"), tiny(image).probabilities)

    def test_with_the_crf(self, client, tiny: atrous.Segmenter, tiny_crf: atrous.Segmenter) -> None:
        image = picture(SIZE, seed=6)
        outputs = [http.InferRequestedOutput("LABELS"), http.InferRequestedOutput("PROBABILITIES")]
        answer = client.infer("tiny", [image_input(image)], outputs=outputs, parameters={"crf": True})
        expected = tiny_crf(image)
        assert (expected.labels != tiny(image).labels).any()
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), expected.labels)
        np.testing.assert_array_equal(answer.as_numpy("PROBABILITIES"), expected.probabilities)

    def test_of_a_precision_that_was_loaded(self, client, tiny: atrous.Segmenter) -> None:
        image = picture(SIZE)
        answer = client.infer("tiny", [image_input(image)], parameters={"precision": "fp32"})
        np.testing.assert_array_equal(answer.as_numpy("LABELS"), tiny(image).labels)


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model_name": "missing"}, r"\[404\] there is no model 'missing'; this server has tiny, color"),
            ({"model_version": "7"}, r"\[404\] model 'tiny' has no version '7'; it has 1"),
            ({"parameters": {"precision": "int8"}}, r"\[400\] .* must be one of fp32, which this server loaded"),
            ({"parameters": {"crf": "yes"}}, r"\[400\] the parameter crf must be true or false; got 'yes'"),
            ({"parameters": {"iterations": 3}}, r"\[400\] unknown parameter 'iterations'"),
            ({"outputs": [http.InferRequestedOutput("MASKS")]}, r"\[400\] outputs are LABELS, CONFIDENCE, PROB"),
            (
                {"outputs": [http.InferRequestedOutput("LABELS", class_count=2)]},
                r"\[400\] output 'LABELS': this server has no classification",
            ),
        ],
    )
    def test_of_what_is_asked_for(self, client, change, message: str) -> None:
        arguments = {"model_name": "tiny", "inputs": [image_input(picture((16, 16)))], **change}
        with pytest.raises(InferenceServerException, match=message):
            client.infer(**arguments)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((1, 16, 16, 3), np.uint8), r"IMAGE is UINT8 \[-1, -1, 3\].*leave the batch axis out"),
            (np.zeros((16, 16), np.uint8), r"got UINT8 \[16, 16\]"),
            (np.zeros((16, 16, 4), np.uint8), r"got UINT8 \[16, 16, 4\]"),
            (np.zeros((16, 16, 3), np.uint16), r"got UINT16 \[16, 16, 3\]"),
            (np.zeros((0, 16, 3), np.uint8), "has no pixels: it is 0×16"),
            (np.zeros((16, 16, 3), np.float64), r"datatype 'FP64'; expected one of UINT8, UINT16, FP32, BYTES"),
        ],
    )
    def test_of_images(self, client, image: np.ndarray, message: str) -> None:
        types = {"uint8": "UINT8", "uint16": "UINT16", "float64": "FP64"}
        made = http.InferInput("IMAGE", image.shape, types[image.dtype.name])
        made.set_data_from_numpy(image)
        with pytest.raises(InferenceServerException, match=message) as raised:
            client.infer("tiny", [made])
        assert raised.value.status() == "400"

    def test_of_an_input_of_another_name(self, client) -> None:
        made = http.InferInput("PICTURE", [1], "UINT8")
        made.set_data_from_numpy(np.zeros(1, np.uint8))
        with pytest.raises(InferenceServerException, match="expected one input, IMAGE or ENCODED; got 'PICTURE'"):
            client.infer("tiny", [made])

    def test_of_a_file_that_is_no_picture(self, client) -> None:
        made = http.InferInput("ENCODED", [9], "UINT8")
        made.set_data_from_numpy(np.arange(9, dtype=np.uint8))
        with pytest.raises(InferenceServerException, match="the file of 9 bytes is not one of JPEG and PNG"):
            client.infer("tiny", [made])

    def test_of_a_truncated_png(self, client) -> None:
        data = np.frombuffer(png_of(picture(SIZE))[:2000], np.uint8)
        made = http.InferInput("ENCODED", data.shape, "UINT8")
        made.set_data_from_numpy(data)
        with pytest.raises(InferenceServerException, match=r"cannot decode the image: .*truncated"):
            client.infer("tiny", [made])

    def test_of_shared_memory(self, client) -> None:
        made = http.InferInput("IMAGE", [16, 16, 3], "UINT8")
        made.set_shared_memory("region", 768)
        with pytest.raises(InferenceServerException, match="in shared memory, which this server does not read"):
            client.infer("tiny", [made])

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_of_a_compressed_body(self, client, algorithm: str) -> None:
        inputs = [image_input(picture((16, 16)))]
        with pytest.raises(InferenceServerException, match=r"\[415\] the body has Content-Encoding"):
            client.infer("tiny", inputs, request_compression_algorithm=algorithm)

    def test_of_reloading_where_it_is_off(self, client) -> None:
        with pytest.raises(InferenceServerException, match=r"\[403\] .* start it with --allow-reload"):
            client.load_model("tiny")


class TestMetadata:
    def test_of_health(self, client) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("color", "1")
        assert not client.is_model_ready("missing")
        assert not client.is_model_ready("tiny", "2")

    def test_of_the_server(self, client) -> None:
        about = client.get_server_metadata()
        assert (about["name"], about["version"]) == ("atrous", atrous.__version__)
        assert "binary_tensor_data" in about["extensions"]

    def test_of_a_model(self, client) -> None:
        about = client.get_model_metadata("tiny")
        shapes = {each["name"]: (each["datatype"], each["shape"]) for each in (*about["inputs"], *about["outputs"])}
        assert shapes == {
            "IMAGE": ("UINT8", [-1, -1, 3]),
            "ENCODED": ("UINT8", [-1]),
            "LABELS": ("UINT8", [-1, -1]),
            "CONFIDENCE": ("UINT8", [-1, -1]),
            "PROBABILITIES": ("FP32", [5, -1, -1]),
        }
        assert about["versions"] == ["1"]

    def test_of_a_bundle(self, client, tiny: atrous.Segmenter) -> None:
        parameters = client.get_model_config("tiny")["parameters"]
        assert parameters["sha256"]["string_value"] == tiny.backend.artifact.sha256
        assert parameters["precisions"]["string_value"] == "fp32"

    def test_of_all_models(self, client) -> None:
        index = client.get_model_repository_index()
        assert [(each["name"], each["state"]) for each in index] == [("tiny", "READY"), ("color", "READY")]
