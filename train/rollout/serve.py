"""Answer observations with actions over HTTP, in msgpack: for a robot whose own program drives it.

    POST /act     {"images": {"image_0": array}, "state": [0.1, 0.2], "instruction": "push the red block",
                   "episode": "a", "reset": true} -> {"action": [0.05, 0.0], "seconds": 0.004}
    GET /spec     what the policy sees and gives

An array is {"shape": [H, W, 3], "data": bytes} of uint8, row by row. An episode has a name, and a policy of
its own that remembers the rest of its chunk; `reset` begins it anew. At most MOST_EPISODES are remembered,
and the one that was asked for longest ago is forgotten. Requests of one episode are answered one by one, and
forward passes take turns, since they share the weights.

Whoever reaches the port can move the robot, and there is no password: the server listens on the loopback
address unless it is told otherwise. What is wrong with a request comes back as one line, with status 400.
"""

from __future__ import annotations

import copy
import errno
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgpack
import numpy as np

from oxcart.shards.errors import ConfigError, NotFiniteError, OxcartError
from oxcart.train.rollout.adapter import Observed
from oxcart.train.rollout.fit import check_seen
from oxcart.train.rollout.play import Acts, batch_of

MOST_EPISODES = 64
LARGEST_BYTES = 64 << 20
"""Size limit of a request."""
MSGPACK = "application/msgpack"
_FIELDS = ("images", "state", "instruction", "episode", "reset")


@dataclass(frozen=True, kw_only=True)
class _Session:
    """An episode that a client is in."""

    policy: Acts
    lock: threading.Lock


class PolicyServer(ThreadingHTTPServer):
    """A server of a policy.

    Args:
        policy: the policy; each episode has a copy, with the same weights and a memory of its own.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Raises:
        ConfigError: the port is in use, or the address is not of this machine.
    """

    daemon_threads = True

    def __init__(self, policy: Acts, host: str, port: int) -> None:
        self.policy, self.spec = policy, policy.spec
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._guard, self._turn = threading.Lock(), threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            why = "is in use; choose another one" if used else f"on {host}: {error.strerror or error}"
            raise ConfigError(f"--port: {port} {why}") from error

    def act(self, request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            ConfigError: something is wrong with the request.
            NotFiniteError: the policy returns NaN or infinity.
        """
        episode, begins, observed = _parsed(request)
        check_seen(self.spec, observed, "the request")
        wanted = {name: observed.images[name] for name, _ in self.spec.cameras}
        state = observed.state if self.spec.state else None
        session = self._session(episode, begins)
        with session.lock, self._turn:
            began = time.perf_counter()
            action = np.asarray(
                session.policy.act_batch(*batch_of([Observed(wanted, state, observed.instruction)]))[0]
            )
            seconds = time.perf_counter() - began
        if not np.isfinite(action).all():
            raise NotFiniteError("the policy's action is not finite")
        return {"action": action.tolist(), "seconds": seconds}

    def about(self) -> dict[str, Any]:
        """What the policy sees and gives."""
        return {
            "cameras": {name: list(size) for name, size in self.spec.cameras},
            "state": list(self.spec.state),
            "action": [column.name for column in self.spec.action],
            "control_rate": self.spec.control_rate,
            "horizon": self.spec.horizon,
            "execute": self.spec.execute,
        }

    def _session(self, episode: str, begins: bool) -> _Session:
        with self._guard:
            found = self._sessions.pop(episode, None)
            if found is None:
                if len(self._sessions) >= MOST_EPISODES:
                    self._sessions.popitem(last=False)
                found, begins = _Session(policy=copy.copy(self.policy), lock=threading.Lock()), True
            self._sessions[episode] = found
        if begins:
            with found.lock:
                found.policy.reset(1)
        return found


class _Handler(BaseHTTPRequestHandler):
    server: PolicyServer
    protocol_version = "HTTP/1.1"
    timeout = 600
    wbufsize = 1 << 16
    disable_nagle_algorithm = True  # which would hold back half an answer for 40 ms

    def do_GET(self) -> None:
        if self.path != "/spec":
            self._answer(404, {"error": f"{self.path}: expected GET /spec or POST /act"})
            return
        self._answer(200, self.server.about())

    def do_POST(self) -> None:
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            size = -1
        if self.path != "/act" or not 0 <= size <= LARGEST_BYTES:
            self.close_connection = True  # the body is not read
            path = f"{self.path}: expected GET /spec or POST /act"
            length = f"Content-Length: expected 0 to {LARGEST_BYTES:,} bytes, got {size}"
            self._answer(*((404, {"error": path}) if self.path != "/act" else (400, {"error": length})))
            return
        body = self.rfile.read(size)
        try:
            self._answer(200, self.server.act(_unpacked(body)))
        except OxcartError as error:
            self._answer(500 if isinstance(error, NotFiniteError) else 400, {"error": str(error)})

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: a robot asks many times a second."""

    def _answer(self, status: int, answer: Mapping[str, Any]) -> None:
        data: bytes = msgpack.packb(answer)
        self.send_response(status)
        self.send_header("Content-Type", MSGPACK)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _unpacked(body: bytes) -> Any:
    try:
        return msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise ConfigError(f"body: expected msgpack: {error}") from error


def _parsed(request: Any) -> tuple[str, bool, Observed]:
    """Name of the episode, whether it begins, and the observation."""
    if not isinstance(request, dict) or not isinstance(request.get("images"), dict):
        raise ConfigError(f"body: expected a map with images, got {type(request).__name__}")
    unknown = [name for name in request if name not in _FIELDS]
    if unknown:
        raise ConfigError(f"{unknown[0]}: expected any of {', '.join(_FIELDS)}")
    images = {str(name): _image(name, value) for name, value in request["images"].items()}
    episode, instruction = request.get("episode", ""), request.get("instruction", "")
    for name, text in (("episode", episode), ("instruction", instruction)):
        if not isinstance(text, str):
            raise ConfigError(f"{name}: expected a text, got {type(text).__name__}")
    state = request.get("state")
    try:
        values = None if state is None else np.array(state, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"state: expected numbers: {error}") from error
    if values is not None and not np.isfinite(values).all():
        raise ConfigError(f"state: expected finite numbers, got {state!r:.80}")
    return episode, bool(request.get("reset", False)), Observed(images, values, instruction)


def _image(name: object, value: Any) -> Any:
    try:
        shape, data = value["shape"], value["data"]
        pixels = np.frombuffer(data, np.uint8).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"images: {name!r}: expected shape and data of uint8 [H, W, 3]: {error}") from error
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ConfigError(f"images: {name!r}: expected shape [H, W, 3], got {list(pixels.shape)}")
    return pixels
