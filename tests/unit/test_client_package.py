"""The package as its users meet it: what importing it loads, and the code of its README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import self_signed
from tests.support.fake_triton import FakeTriton, running

CLIENT = Path(__file__).parents[2] / "client"
HEAVY = ["torch", "faiss", "onnxruntime", "onnx", "pydantic", "typer", "rich", "pyarrow", "trireme_runtime"]


def test_importing_the_client_loads_nothing_heavy() -> None:
    program = f"import sys, trireme_client; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CLIENT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = self_signed()
    for name, content in (("ca.pem", certificate), ("client.pem", certificate), ("client.key", key)):
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 16
    mutual = grpc.ssl_server_credentials([(key, certificate)], certificate, require_client_auth=True)
    plain, second, encrypted = FakeTriton(), FakeTriton(), FakeTriton()
    with running(plain) as url, running(second) as other, running(encrypted, mutual) as tls_url:
        code = (
            "\n".join(blocks)
            .replace("localhost:8001", url)
            .replace("localhost:8002", other)
            .replace("triton.internal:8001", tls_url)
        )
        exec(compile(code, "client/README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "FULL int64 3" in printed
    assert "[10, 5, 10]" in printed
    assert "100 answers" in printed
    assert "user_id is '13085' (str); allowed: an integer from 0 to 2**63 - 1, or ANONYMOUS" in printed
    assert encrypted.headers[0]["authorization"] == "Bearer abc"
