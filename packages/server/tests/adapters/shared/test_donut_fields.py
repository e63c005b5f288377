from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.donut_fields import DEEPEST, fields_of, leaves
from tiny_donut import fields_of_transformers

MARKS = {"<sep/>", "<invoice/>", "<no/>"}
NAMES = st.sampled_from(["a", "b", "menu.nm", "A", "x+y"])
WORDS = st.sampled_from(["one", " two ", "", "3.00", "<invoice/>", "<other/>", "a\nb", "<sep/>", "<s_", "x > y"])
NESTED = st.recursive(
    st.lists(WORDS, max_size=3).map("".join),
    lambda inner: st.one_of(
        st.tuples(NAMES, inner).map(lambda each: f"<s_{each[0]}>{each[1]}</s_{each[0]}>"),
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, max_size=3).map("<sep/>".join),
    ),
    max_leaves=12,
)
BROKEN = st.lists(st.one_of(WORDS, NAMES.map("<s_{}>".format), NAMES.map("</s_{}>".format)), max_size=12).map("".join)


@given(st.one_of(NESTED, BROKEN))
def test_fields_equal_those_of_transformers(text: str) -> None:
    theirs = fields_of_transformers(text, MARKS)
    if isinstance(theirs, list):  # data is an object on the wire
        theirs = theirs[0] if len(theirs) == 1 else {"items": theirs}
    assert fields_of(text, MARKS) == theirs


def test_a_receipt_becomes_its_fields_and_their_values() -> None:
    text = (
        "<s_menu><s_nm>Tea</s_nm><s_cnt>2</s_cnt><sep/><s_nm>Cake</s_nm></s_menu>"
        "<s_total><s_price>9.00</s_price></s_total>"
    )
    fields = fields_of(text, MARKS)
    assert fields == {"menu": [{"nm": "Tea", "cnt": "2"}, {"nm": "Cake"}], "total": {"price": "9.00"}}
    assert list(leaves(fields)) == [
        ("menu.nm", "Tea"),
        ("menu.cnt", "2"),
        ("menu.nm", "Cake"),
        ("total.price", "9.00"),
    ]


def test_a_model_that_fails_may_nest_as_deep_as_it_likes() -> None:
    names = [f"n{at}" for at in range(500)]
    text = "".join(f"<s_{name}>" for name in names) + "x" + "".join(f"</s_{name}>" for name in reversed(names))
    value: Any = fields_of(text, MARKS)
    depth = 0
    while isinstance(value, dict):
        [value] = value.values()
        depth += 1
    assert depth == DEEPEST + 1
    assert value.startswith("<s_n51>")
