from trireme_runtime.triton.stand_in import StandIn


class TritonPythonModel(StandIn):
    engine = "tensorrt"
