"""recommend_stream: the whole funnel, with two responses to a request."""

from trireme_runtime.triton.model import ChainModel
from trireme_runtime.triton.streaming import StreamingAdapter


class TritonPythonModel(ChainModel):
    """Runs all five stages in one process, and answers once before it ranks."""

    adapter = StreamingAdapter
