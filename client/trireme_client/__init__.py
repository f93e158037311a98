"""Clients for recommendations served by Triton.

with trireme_client.Client("localhost:8001") as client:
    for item_id, score in client.recommend(13085, k=10):
        ...
"""

from .async_client import AsyncClient
from .cache import Cache, CacheCounts
from .errors import (
    ClosedError,
    ConnectError,
    InvalidRequestError,
    ModelNotFoundError,
    NotNowError,
    OverloadedError,
    ProtocolError,
    ServerError,
    TimeoutError,
    TriremeError,
    UnavailableError,
    ValidationError,
)
from .hedging import Hedging
from .ledger import CallLedger
from .model import ModelInfo
from .options import Coalescing, Timeout
from .recommendations import Reason, Recommendation, Recommendations, Rung
from .request_log import RequestLog
from .requests import ANONYMOUS, Request
from .sync_client import Client
from .targets import TargetState
from .telemetry import Telemetry
from .tls import TLS
from .tracker import Tracker

__all__ = [
    "ANONYMOUS",
    "TLS",
    "AsyncClient",
    "Cache",
    "CacheCounts",
    "CallLedger",
    "Client",
    "ClosedError",
    "Coalescing",
    "ConnectError",
    "Hedging",
    "InvalidRequestError",
    "ModelInfo",
    "ModelNotFoundError",
    "NotNowError",
    "OverloadedError",
    "ProtocolError",
    "Reason",
    "Recommendation",
    "Recommendations",
    "Request",
    "RequestLog",
    "Rung",
    "ServerError",
    "TargetState",
    "Telemetry",
    "Timeout",
    "TimeoutError",
    "Tracker",
    "TriremeError",
    "UnavailableError",
    "ValidationError",
]
