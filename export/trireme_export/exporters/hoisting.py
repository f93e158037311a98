"""A graph transformation: what a ranker's first layer does to an item, or to a user, is computed once, not per candidate.

It looks for the form a linear layer over a concatenation, ``Linear(cat([…, item rows, …, user rows, …], dim=-1))``, where

- item rows are a constant table gathered by an index (features, vectors, embeddings of a constant category): the table is
  multiplied by its part of the weights at export, and the gather reads the product;
- user rows are one row per user expanded over the candidates: they are multiplied before they are expanded.

Whatever else is concatenated keeps its place in a smaller product. The sums are the same up to the order of float32 additions,
which the comparison with PyTorch after it checks. This is the factorisation that makes serving of wide first layers cheap in
DLRM-like rankers (Naumov et al., arXiv:1906.00091, have the form).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trireme_export.exporters.constants import add_constant
from trireme_export.exporters.nodes import attribute, drop_unused
from trireme_export.exporters.shapes import tensor_types

__all__ = ["hoist"]


def hoist(model: onnx.ModelProto) -> int:
    """Rewrites ``model`` in place; returns how many layers were taken apart."""
    graph = _Graph(model)
    count = 0
    for node in list(model.graph.node):
        if node.op_type == "MatMul" and (parts := graph.parts(node)):
            _replace(model.graph, node, graph.factors(node, parts))
            count += 1
    if count:
        drop_unused(model.graph)
    return count


class _Graph:
    """Look-ups in a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        shapes = {name: tensor.dims or () for name, tensor in tensor_types(model).items()}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.widths = {name: shape[-1] for name, shape in shapes.items() if shape}
        self.ranks = {name: len(shape) for name, shape in shapes.items()}

    def constant(self, name: str) -> np.ndarray | None:
        if name in self.constants:
            return np.asarray(numpy_helper.to_array(self.constants[name]))
        node = self.maker.get(name)
        if node is not None and node.op_type == "Constant":
            return np.asarray(numpy_helper.to_array(helper.get_node_attr_value(node, "value")))
        return None

    def parts(self, node: onnx.NodeProto) -> list[str]:
        """Returns the concatenated inputs of a layer if one can be hoisted and the result keeps its shape, else nothing."""
        concat, weights = self.maker.get(node.input[0]), self.constant(node.input[1])
        if concat is None or concat.op_type != "Concat" or weights is None or weights.ndim != 2:
            return []
        axis, rank = helper.get_node_attr_value(concat, "axis"), self.ranks.get(node.input[0], 0)
        names = list(concat.input)
        if axis not in (-1, rank - 1) or not all(self.widths.get(name) for name in names):
            return []
        gathered = [name for name in names if self.table(name) is not None]
        expanded = [name for name in names if self.expanded(name)]
        # A sum of expanded rows alone would lose the candidates' dimension.
        return names if gathered or (expanded and len(expanded) < len(names)) else []

    def table(self, name: str) -> tuple[np.ndarray, str] | None:
        """Returns ``(rows float32 [n, width], index)`` if ``name`` is rows of a constant table."""
        node = self.maker.get(name)
        if node is None or node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
            return None
        rows = self.constant(node.input[0])
        if rows is None or rows.ndim != 2:
            return None
        inner = self.maker.get(node.input[1])
        if inner is not None and inner.op_type == "Gather" and attribute(inner, "axis", 0) == 0:
            category = self.constant(inner.input[0])
            if category is not None and category.ndim == 1:
                return rows[category], inner.input[1]
        return rows, node.input[1]

    def expanded(self, name: str) -> str | None:
        """Returns what is expanded over the candidates to make ``name``."""
        node = self.maker.get(name)
        return node.input[0] if node is not None and node.op_type == "Expand" else None

    def factors(self, node: onnx.NodeProto, names: list[str]) -> Iterator[Any]:
        """Yields the nodes, and the names and values of constants, that replace the layer; the last node makes its output."""
        weights = self.constant(node.input[1])
        assert weights is not None
        stem, terms, rest, start = node.output[0], [], [], 0
        for position, name in enumerate(names):
            part = weights[start : start + self.widths[name]]
            start += self.widths[name]
            term = f"{stem}/part{position}"
            if (found := self.table(name)) is not None:
                rows, index = found
                yield f"{term}/table", rows @ part
                yield helper.make_node("Gather", [f"{term}/table", index], [term], name=term)
            elif source := self.expanded(name):
                yield f"{term}/weights", part
                yield helper.make_node("MatMul", [source, f"{term}/weights"], [term], name=term)
            else:
                rest.append((name, part))
                continue
            terms.append(term)
        if rest:
            yield from _product(f"{stem}/rest", rest)
            terms.append(f"{stem}/rest")
        yield from _sum(stem, terms)


def _product(term: str, rest: list[tuple[str, np.ndarray]]) -> Iterator[Any]:
    """Yields the product of everything that cannot be hoisted."""
    given = rest[0][0]
    if len(rest) > 1:
        given = f"{term}/concat"
        yield helper.make_node("Concat", [name for name, _ in rest], [given], name=given, axis=-1)
    yield f"{term}/weights", np.concatenate([part for _, part in rest])
    yield helper.make_node("MatMul", [given, f"{term}/weights"], [term], name=term)


def _sum(output: str, terms: list[str]) -> Iterator[onnx.NodeProto]:
    total = terms[0]
    if len(terms) == 1:
        yield helper.make_node("Identity", [total], [output], name=output)
    for position, term in enumerate(terms[1:], start=1):
        result = output if position == len(terms) - 1 else f"{output}/sum{position}"
        yield helper.make_node("Add", [total, term], [result], name=result)
        total = result


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, made: Iterator[Any]) -> None:
    position = next(index for index, other in enumerate(graph.node) if other is node or other == node)
    nodes = []
    for thing in made:
        if isinstance(thing, onnx.NodeProto):
            nodes.append(thing)
        else:
            add_constant(graph, *thing)
    kept = [*graph.node[:position], *nodes, *graph.node[position + 1 :]]
    del graph.node[:]
    graph.node.extend(kept)
