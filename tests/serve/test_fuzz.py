from __future__ import annotations

import random

import pytest
from fuzz_requests import fuzz, make_request
from http_servers import ServerProcess, infer, labels_of
from hypothesis import given
from hypothesis import strategies as st
from segmenters import picture

import atrous
from atrous.serve.protocol import json_length, parse_request
from atrous.serve.refusals import RefusedError


def test_no_request_is_a_failure_of_the_server(server: ServerProcess, tiny: atrous.Segmenter) -> None:
    found = fuzz(server.port, "tiny", 400)
    assert found[500] == 0
    assert found[200] > 20
    assert found[400] > 50
    image = picture((50, 70))
    assert (labels_of(infer(server.port, "tiny", image), (50, 70)) == tiny(image).labels).all()
    assert not any(line["level"] == "error" for line in server.lines())


@given(st.binary(max_size=200), st.integers(0, 200))
def test_bytes_that_are_no_request_are_refused(body: bytes, length: int) -> None:
    with pytest.raises(RefusedError) as raised:
        parse_request(body, json_length(str(length), len(body), 1000))
    assert raised.value.status == 400


@given(st.integers(0, 2**32))
def test_requests_of_the_fuzzer_differ(seed: int) -> None:
    assert make_request(random.Random(seed), "m") == make_request(random.Random(seed), "m")
