"""Records of searches, as tests look at them."""

from collections.abc import Mapping

from eagleray import storage
from eagleray.state import keys, searches


def of(uri: str, name: str) -> list[searches.Record]:
    """The trials of all searches of this name, by search and number."""
    store = storage.open(uri)
    known = keys.searches(entry.key for entry in store.list(f"{keys.SEARCHES}{name}/"))
    return [one for found in known for one in searches.Records(store, *found).trials()]


def unchanged(before: Mapping[int, searches.Record], after: Mapping[int, searches.Record]) -> bool:
    """Whether trials are as they were, but for weights, which stay of the best alone."""
    pairs = ((one, after[number]) for number, one in before.items())
    return all(one.model_copy(update={"weights": new.weights}) == new for one, new in pairs)
