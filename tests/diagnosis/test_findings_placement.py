"""What findings about placement read from a graph."""

import pandas as pd
from onnx import TensorProto, helper

from workbench.diagnosis.findings.placement import edges, quantised


def test_edges_lead_into_subgraphs_and_back_to_their_owner():
    branch = helper.make_graph(
        [helper.make_node("Neg", ["outer"], ["inner"], name="neg")], "branch", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["x"], ["outer", ""], name="abs"),
            helper.make_node("Not", ["c"], ["chosen"], name="not"),
            helper.make_node("If", ["chosen"], ["y"], name="if", then_branch=branch, else_branch=branch),
            helper.make_node("Clip", ["y", "", "outer"], ["z"], name="clip"),
        ],
        "main", [], [],
    )  # fmt: skip
    found = edges(helper.make_model(graph))
    pairs = set(found[["producer", "consumer"]].itertuples(index=False, name=None))
    assert pairs == {("abs", "neg"), ("neg", "if"), ("not", "if"), ("if", "clip"), ("abs", "clip")}
    assert len(edges(None)) == 0


def test_words_for_quantised_operators():
    yes = ["DynamicQuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QAttention", "MatMulNBits"]
    no = ["MatMul", "Conv", "Cast", "QuickGelu", "SequenceInsert", "Gather"]
    assert quantised(pd.Series(yes)).all()
    assert not quantised(pd.Series(no)).any()
