"""Graphs for target gpu: what TensorRT needs beyond what ONNX Runtime takes."""
