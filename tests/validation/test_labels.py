"""A label is refused, with the reason, once the arithmetic or an intervention speaks against it."""

from dataclasses import replace

import pytest

from workbench.validation.labels import floors_ns, interventional_shares, label_of
from workbench.validation.ratios import Timed


def labelled(cell, situation=None, **medians_ns):
    """The label with other times of some arms."""
    timed = Timed(
        {**cell.timed.medians_ns, **{arm.replace("_", "-"): {0: value} for arm, value in medians_ns.items()}}, 0.02
    )
    return label_of(cell.group, cell.arm, situation or cell.situation, timed)


def with_ceilings(cell, **ceilings):
    return replace(cell.situation, ceilings=cell.situation.ceilings.model_copy(update=ceilings))


def test_labels_of_the_set_as_recorded(cells_of):
    assert cells_of("compute-n2048")["device"].label.classes == ("compute",)
    border = cells_of("conv-border-pcie")["pinned"].label
    assert (border.classes, border.how, border.accepted) == (("compute", "pcie"), "border", True)
    real = cells_of("squeezenet-batch-4")["device"].label
    assert (real.classes, real.how, real.accepted) == (("launch",), "intervention", True)


def test_a_floor_that_is_less_than_three_times_the_next_is_refused(cells_of):
    cell = cells_of("compute-n2048")["device"]
    floors = floors_ns(cell.situation)
    overhead = cell.situation.ceilings.node_overhead_ns
    close = with_ceilings(cell, node_overhead_ns=overhead * floors["compute"] / (2.5 * floors["launch"]))
    label = labelled(cell, close)
    assert not label.accepted
    assert label.why == "The floor of compute is 2.5 times the next one: too little to be sure."
    assert labelled(
        cell, with_ceilings(cell, node_overhead_ns=overhead * floors["compute"] / (3.2 * floors["launch"]))
    ).accepted


def test_a_border_whose_floors_lie_apart_is_refused(cells_of):
    cell = cells_of("conv-border-pcie")["pinned"]
    rates = cell.situation.ceilings
    faster = {name: 4 * getattr(rates, name) for name in ("h2d_pinned_bytes_per_s", "d2h_pinned_bytes_per_s")}
    label = labelled(cell, with_ceilings(cell, **faster))
    assert not label.accepted
    assert label.why.startswith("The two floors differ ")
    assert label.why.endswith(" times: this is no border.")


def test_a_lever_that_gives_nothing_refuses_its_class(cells_of):
    cell = cells_of("pcie-4mi")["numpy"]
    numpy = cell.timed.median_ns("numpy")
    label = labelled(cell, device=0.8 * numpy)
    assert (label.accepted, label.why) == (False, "The intervention gives pcie 0.20 of T only.")
    assert labelled(cell, device=0.3 * numpy).accepted


def test_a_lever_of_another_class_that_gives_much_refuses(cells_of):
    cell = cells_of("compute-n2048")["device"]
    label = labelled(cell, graph=0.4 * cell.timed.median_ns("device"))
    assert (label.accepted, label.why) == (False, "The intervention gives launch 0.60 of T.")


def test_a_real_graph_without_all_interventions_has_no_label(cells_of):
    cell = cells_of("squeezenet-batch-4")["device"]
    without = Timed({arm: rounds for arm, rounds in cell.timed.medians_ns.items() if arm != "tf32-off"}, 0.02)
    label = label_of(cell.group, cell.arm, cell.situation, without)
    assert (label.accepted, label.classes) == (False, ())
    assert label.why == "No intervention measured compute, memory."


def of_shares(cell, pcie, launch, compute):
    """The label with such times of the arms that these are the shares of T."""
    peaks = cell.situation.ceilings.flops_per_s
    r = peaks["tensor:tf32"] / peaks.get("tensor:float32", peaks["fp:float32"])
    device = (1 - pcie) * 1e6
    graph = device - launch * 1e6
    times = {"numpy": 1e6, "device": device, "graph": graph, "tf32-off": device + compute * (r - 1) * 1e6}
    times["graph-more"] = 4 * graph  # nothing is under-filled
    timed = Timed({arm: {0: value} for arm, value in times.items()}, 0.02)
    return label_of(cell.group, cell.arm, cell.situation, timed)


def test_a_real_graph_is_what_the_interventions_give_most(cells_of):
    cell = cells_of("squeezenet-batch-16")["numpy"]
    found = of_shares(cell, pcie=0.6, launch=0.2, compute=0.1)
    assert (found.classes, found.how, found.accepted) == (("pcie",), "intervention", True)
    assert found.shares["memory"].value == pytest.approx(0.1)
    assert of_shares(cell, pcie=0.1, launch=0.2, compute=0.1).classes == ("memory",)
    assert of_shares(cell, pcie=0.1, launch=0.4, compute=0.4).classes == ("compute", "launch")


def test_a_real_graph_without_a_large_share_has_no_label(cells_of):
    label = of_shares(cells_of("squeezenet-batch-16")["numpy"], pcie=0.38, launch=0.25, compute=0.25)
    assert (label.accepted, label.why) == (False, "No interventional share is large and clear.")


def test_interventional_shares_are_the_arithmetic_of_their_definition(cells_of):
    cell = cells_of("conv-float32")["device"]
    t = {arm: cell.timed.median_ns(arm) for arm in ("device", "graph", "tf32-off")}
    peaks = cell.situation.ceilings.flops_per_s
    r = peaks["tensor:tf32"] / peaks.get("tensor:float32", peaks["fp:float32"])
    found = interventional_shares(cell.group, "device", cell.situation, cell.timed)
    assert found["pcie"].value == 0
    assert found["launch"].value == pytest.approx((t["device"] - t["graph"]) / t["device"])
    assert found["compute"].value == pytest.approx((t["tf32-off"] - t["device"]) / ((r - 1) * t["device"]))
    assert found["memory"].value == pytest.approx(1 - sum(found[name].value for name in ("pcie", "launch", "compute")))


def test_a_run_without_nodes_is_refused_instead_of_labelled(cells_of):
    cell = cells_of("compute-n2048")["device"]
    bare = replace(cell.situation, diagnosis=replace(cell.situation.diagnosis, nodes=None))
    label = labelled(cell, bare)
    assert (label.accepted, label.why) == (False, "Its nodes were not recorded, so that its floors are not known.")
