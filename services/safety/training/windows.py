"""How texts are cut, as `Windows::cut` of services/safety/src/windows.rs does."""

# Tokens of the text in a window, and how far the next one begins.
SIZES = {"whole": (254, 190), "short": (62, 31)}


def windows(ids, size, step):
    if len(ids) <= size:
        return [ids]
    last = len(ids) - size
    return [ids[at : at + size] for at in [*range(0, last, step), last]]
