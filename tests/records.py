"""Records of searches, as tests look at them."""

from eagleray import storage
from eagleray.state import keys, searches


def of(uri: str, name: str) -> list[searches.Record]:
    """The trials of all searches of this name, by search and number."""
    store = storage.open(uri)
    known = keys.searches(entry.key for entry in store.list(f"{keys.SEARCHES}{name}/"))
    return [one for found in known for one in searches.Records(store, *found).trials()]
