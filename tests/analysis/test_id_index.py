"""The first row with an id, against a search from the top."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.id_index import NO_ROW, IdIndex

near = st.integers(-5, 5)
anywhere = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(near, min_size=1, max_size=30) | st.lists(near | anywhere, min_size=1, max_size=30),
    st.lists(near | anywhere, max_size=30),
)
def test_any_ids(column, asked):
    found = IdIndex(np.array(column, np.int64)).first_rows(np.array([*asked, *column], np.int64))
    assert found.tolist() == [column.index(each) if each in column else NO_ROW for each in [*asked, *column]]


def test_the_first_of_many_rows_is_found():
    ids = np.arange(300_000) // 3
    assert (IdIndex(ids).first_rows(np.arange(100_000)) == 3 * np.arange(100_000)).all()
