#!/usr/bin/env python3
"""Stands in for trtexec, which needs a GPU: writes its banner, refuses no flag, and writes its arguments as the plan. The flags
themselves are compared with those of NVIDIA's sources by a contract test."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

VERSION = os.environ.get("FAKE_TRTEXEC_VERSION", "110100")

if __name__ == "__main__":
    sys.stdout.write(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{VERSION}] [b106] # trtexec\n")
    if "--help" in sys.argv:
        sys.exit(0)
    if os.environ.get("FAKE_TRTEXEC_FAILS"):
        sys.stdout.write("[11/27/2026-05:39:07] [E] [TRT] While parsing node number 0 [MatMul]: no importer\n")
        sys.exit("&&&& FAILED TensorRT.trtexec")
    options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    plan = options | {"gpu": os.environ["CUDA_VISIBLE_DEVICES"]}
    Path(options["--saveEngine"]).write_text(json.dumps(plan))
