"""A served policy: one episode does not disturb another, and what is wrong comes back as one line."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train.rollout.serve import MOST_EPISODES, PolicyServer
from planted_policies import Planted

DOCS = Path(__file__).parents[3] / "docs" / "policy.md"
IMAGE = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with PolicyServer(Planted("steps"), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def packed(image: Any = IMAGE) -> dict[str, Any]:
    return {"shape": list(image.shape), "data": image.tobytes()}


def request(**changes: Any) -> dict[str, Any]:
    plain = {"images": {"image_0": packed()}, "state": [0.0], "instruction": "go"}
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


def ask(server: PolicyServer, body: Any, path: str = "/act") -> Any:
    data = body if isinstance(body, bytes) else msgpack.packb(body)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", data, timeout=20) as answer:
        return msgpack.unpackb(answer.read())


def step(server: PolicyServer, **changes: Any) -> int:
    """Which step of its episode the planted policy says that this is."""
    return round(ask(server, request(**changes))["action"][0] * 100)


def test_each_episode_has_a_memory_of_its_own(server: PolicyServer) -> None:
    assert [step(server, episode="a") for _ in range(3)] == [1, 2, 3]
    assert [step(server, episode="b") for _ in range(2)] == [1, 2]
    assert step(server, episode="a") == 4
    assert step(server, episode="a", reset=True) == 1
    assert step(server, episode="b") == 3


def test_clients_at_one_time_do_not_disturb_each_other(server: PolicyServer) -> None:
    def play(name: str) -> list[int]:
        return [step(server, episode=name) for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(play, "abcd")) == [list(range(1, 11))] * 4


def test_the_episode_that_was_asked_for_longest_ago_is_forgotten(server: PolicyServer) -> None:
    for i in range(MOST_EPISODES):
        assert step(server, episode=str(i)) == 1
    assert step(server, episode="0") == 2  # so that 1 is the one asked for longest ago
    assert step(server, episode="new") == 1
    assert step(server, episode="0") == 3
    assert step(server, episode="1") == 1


def test_the_server_says_what_the_policy_sees_and_gives(server: PolicyServer) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/spec", timeout=20) as answer:
        found = msgpack.unpackb(answer.read())
    assert found["cameras"] == {"image_0": [8, 12]}
    assert (found["state"], found["action"], found["control_rate"]) == (["x"], ["dx"], 10)


@pytest.mark.parametrize(
    ("body", "path", "status", "said"),
    [
        (b"\xc1", "/act", 400, "body: expected msgpack"),
        ([1], "/act", 400, "body: expected a map with images, got list"),
        (request(images=None), "/act", 400, "body: expected a map with images"),
        (request(images={}), "/act", 400, "cameras: the policy sees 'image_0', and the request has"),
        (
            request(images={"image_0": packed(IMAGE[:4])}),
            "/act",
            400,
            "the request shows 4x12",
        ),
        (request(images={"image_0": [1, 2]}), "/act", 400, "images: 'image_0': expected shape and data"),
        (request(images={"image_0": {"shape": [9, 12, 3], "data": b"x"}}), "/act", 400, "images: 'image_0'"),
        (
            request(images={"image_0": packed(IMAGE[0])}),
            "/act",
            400,
            "[H, W, 3], got [12, 3]",
        ),
        (request(state=None), "/act", 400, "state: the policy reads 1 values (x), and the request has none"),
        (request(state=[1, 2]), "/act", 400, "and the request has 2 values"),
        (request(state="far"), "/act", 400, "state: expected numbers"),
        (request(state=[float("nan")]), "/act", 400, "state: expected finite numbers"),
        (request(instruction=3), "/act", 400, "instruction: expected a text, got int"),
        (request(episode=3), "/act", 400, "episode: expected a text, got int"),
        (request(prompt="go"), "/act", 400, "prompt: expected any of images, state"),
        (request(), "/actt", 404, "/actt: expected GET /spec or POST /act"),
    ],
)
def test_what_is_wrong_comes_back_as_one_line(
    server: PolicyServer, body: Any, path: str, status: int, said: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(server, body, path)
    assert error.value.code == status
    message = msgpack.unpackb(error.value.read())["error"]
    assert said in message
    assert "\n" not in message
    assert step(server) == 1  # and the server goes on


def test_an_action_that_is_not_finite_is_not_sent() -> None:
    with PolicyServer(Planted("nan"), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(server, request())
        server.shutdown()
    assert error.value.code == 500
    assert msgpack.unpackb(error.value.read())["error"] == "the policy's action is not finite"


def test_a_port_in_use_is_refused_in_one_line(server: PolicyServer) -> None:
    with pytest.raises(ConfigError, match=rf"^--port: {server.server_port} is in use; choose another one$"):
        PolicyServer(Planted(), "127.0.0.1", server.server_port)


def test_the_client_of_the_documentation_drives_a_robot(server: PolicyServer) -> None:
    (client,) = re.findall(r"```python\n(# A client\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(client.splitlines()) <= 20
    sent: list[Any] = []

    class Robot:
        def observe(self) -> Any:
            return {"image_0": IMAGE}, np.zeros(1, np.float32)

        def act(self, action: Any) -> bool:
            sent.append(action)
            return len(sent) == 3

    space: dict[str, Any] = {"robot": Robot(), "URL": f"http://127.0.0.1:{server.server_port}"}
    exec(client.replace("http://127.0.0.1:8765", space["URL"]), space)
    np.testing.assert_allclose(np.array(sent)[:, 0], [0.01, 0.02, 0.03], rtol=1e-6)
