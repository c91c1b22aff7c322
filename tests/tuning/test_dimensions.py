"""Levers as dimensions of a search space, against connected components found one pair at a time."""


from hypothesis import given
from hypothesis import strategies as st

from workbench.config import RunConfig
from workbench.diagnosis.levers import Ranked, custom, lever, levers
from workbench.diagnosis.prediction import Prediction
from workbench.tuning.dimensions import dimensions_of, suggestions
from workbench.tuning.space import Choice, Space

OPTIONS = [("binding",), ("batch",), ("cuda_graph",), ("cuda", "use_tf32"), ("cuda", "prefer_nhwc"),
           ("session", "entries", "a"), ("session", "entries", "b")]  # fmt: skip


def lever_setting(name, paths):
    changes = {}
    for *above, last in paths:
        inner = changes
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = name
    return custom(name, changes)


def components(chosen):
    """Brute force: merge any two groups that share an option, until none do."""
    groups = [({name}, set(paths)) for name, paths in chosen.items()]
    for _ in groups * len(groups):
        for one in groups:
            for other in groups:
                if one is not other and one[1] & other[1]:
                    groups = [group for group in groups if group is not one and group is not other]
                    groups.append((one[0] | other[0], one[1] | other[1]))
                    break
            else:
                continue
            break
    return {frozenset(names) for names, _ in groups}


@given(st.lists(st.sets(st.sampled_from(OPTIONS), min_size=1, max_size=3), max_size=6))
def test_levers_that_set_a_common_option_exclude_one_another_and_others_do_not(sets):
    chosen = {f"lever-{at}": paths for at, paths in enumerate(sets)}
    found = dimensions_of([lever_setting(name, paths) for name, paths in chosen.items()], None)
    assert {frozenset(choice.name for choice in choices) for choices in found.values()} == components(chosen)
    for dimension, choices in found.items():
        options = {path for choice in choices for path in chosen[choice.name]}
        assert dimension in {".".join(path) for path in options}


def test_a_dimension_is_called_after_the_option_that_most_of_its_levers_set():
    found = dimensions_of(
        [lever_setting("graph", [("binding",), ("cuda_graph",)]), lever_setting("pinned", [("binding",)])], None
    )
    assert {name: [choice.name for choice in choices] for name, choices in found.items()} == {
        "binding": ["graph", "pinned"]
    }
    assert found["binding"][0].changes == {"binding": "graph", "cuda_graph": "graph"}


def ranking(*said):
    """(lever, whether it treats the verdict, predicted ratio) in the order given."""
    known = {each.name: each for each in levers()}
    return [Ranked(known[name], Prediction(name, ratio, ratio, ratio), treats) for name, treats, ratio in said]


def space_of(ranked):
    """One dimension for each lever, each of them a seed, which goes with anything."""
    choices = {each.lever.name: [Choice(each.lever.name, {"dims": {each.lever.name: 1}})] for each in ranked}
    return Space(RunConfig(model="m"), choices)


def test_suggestions_begin_with_all_that_should_help_then_what_may_then_one_by_one():
    ranked = ranking(
        ("io-binding-device", True, 0.9), ("fuse-conv-bias", True, None), ("tf32-off", False, 1.5),
        ("prefer-nhwc", False, 0.5),
    )  # fmt: skip
    found = suggestions(ranked, space_of(ranked), 10)
    device, fused, nhwc = ({name: name} for name in ("io-binding-device", "fuse-conv-bias", "prefer-nhwc"))
    assert found == [device | nhwc, device | nhwc | fused, nhwc, device, fused]
    assert suggestions(ranked, space_of(ranked), 1) == found[:1]


def test_an_interval_that_leaves_room_makes_a_lever_worth_trying():
    name = "float16"
    ranked = [Ranked(lever(name), Prediction(name, 1.05, low, 1.3), True) for low in (0.8, 1.01)]
    assert suggestions(ranked[:1], space_of(ranked[:1]), 10) == [{name: name}]
    assert suggestions(ranked[1:], space_of(ranked[1:]), 10) == []


def test_of_levers_that_exclude_one_another_the_best_is_taken():
    ranked = ranking(("io-binding-pinned", True, 0.7), ("io-binding-device", True, 0.5))
    space = Space(RunConfig(model="m"), dimensions_of([each.lever for each in ranked], None))
    assert suggestions(ranked, space, 10) == [{"binding": "io-binding-device"}, {"binding": "io-binding-pinned"}]


def test_what_contradicts_a_choice_before_it_gives_way():
    ranked = ranking(("concurrency-4", True, 0.5), ("cuda-graph", True, 0.6), ("io-binding-device", True, 0.8))
    space = Space(RunConfig(model="m"), dimensions_of([each.lever for each in ranked], None))
    assert suggestions(ranked, space, 1) == [{"concurrency": "concurrency-4", "binding": "io-binding-device"}]


def test_levers_outside_of_the_space_are_never_suggested():
    ranked = ranking(("prefer-nhwc", False, 0.5), ("fuse-conv-bias", False, 0.6))
    assert suggestions(ranked, space_of(ranked[1:]), 10) == [{"fuse-conv-bias": "fuse-conv-bias"}]
