"""tritonserver's HTTP API, for ourselves: its port belongs to one server alone, where several share that for gRPC, and it takes
no certificates, where gRPC does. What is closed to others on it is open to those who send the server's key.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from trireme_server.command import ADMIN_HEADER

JSON_LENGTH = "Inference-Header-Content-Length"
ASK_TIMEOUT_S = 5.0


class ApiError(Exception):
    """tritonserver did not do what it was asked for; one line."""


class Api:
    """Asks one tritonserver. Safe to share between threads: every call has a connection of its own.

    Args:
        url: base URL of the HTTP endpoint.
        key: opens what is closed; None where nothing is.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._address = urlsplit(url).netloc
        self._headers = {} if key is None else {ADMIN_HEADER: key}

    def is_ready(self) -> bool:
        """Whether all models are loaded."""
        try:
            self._call("GET", "v2/health/ready", timeout_s=ASK_TIMEOUT_S)
        except ApiError:
            return False
        return True

    def config(self, model: str) -> dict[str, Any]:
        """Returns the configuration of a model. Raises: ApiError."""
        _, body = self._call("GET", f"v2/models/{model}/config", timeout_s=ASK_TIMEOUT_S)
        config: dict[str, Any] = json.loads(body)
        return config

    def load(self, model: str) -> None:
        """Loads a model again, which may take long. Raises: ApiError."""
        self._call("POST", f"v2/repository/models/{model}/load", b"{}", timeout_s=None)

    def infer(self, model: str, inputs: Mapping[str, np.ndarray], timeout_s: float) -> dict[str, np.ndarray]:
        """Returns the outputs of a model for ``inputs``, both by name, with the batch as their first dimension.

        Raises:
            ApiError: the model refused them, or did not answer in time.
        """
        arrays = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        tensors = [
            {
                "name": name,
                "shape": values.shape,
                "datatype": np_to_triton_dtype(values.dtype),
                "parameters": {"binary_data_size": values.nbytes},
            }
            for name, values in arrays.items()
        ]
        head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        body = b"".join([head, *(values.tobytes() for values in arrays.values())])
        path, length = f"v2/models/{model}/infer", {JSON_LENGTH: str(len(head))}
        return _outputs(*self._call("POST", path, body, timeout_s=timeout_s, headers=length))

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, bytes]:
        """Returns the length of the JSON in the answer, and the answer."""
        connection = http.client.HTTPConnection(self._address, timeout=timeout_s)
        try:
            connection.request(method, f"/{path}", body, {**self._headers, **headers})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise ApiError(_reason(content) or f"HTTP status {answer.status}")
        return int(answer.headers.get(JSON_LENGTH, len(content))), content


def _reason(content: bytes) -> str:
    """The first line of an error; below it may come a traceback."""
    try:
        reason = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        reason = content.decode(errors="replace")
    return reason.strip().partition("\n")[0]


def _outputs(json_length: int, content: bytes) -> dict[str, np.ndarray]:
    found, start = {}, json_length
    for tensor in json.loads(content[:json_length])["outputs"]:
        end = start + int(tensor["parameters"]["binary_data_size"])
        values = np.frombuffer(content[start:end], triton_to_np_dtype(tensor["datatype"]))
        found[tensor["name"]] = values.reshape(tensor["shape"])
        start = end
    return found
