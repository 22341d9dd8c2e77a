"""How texts are cut, as `Windows::cut` of services/safety/src/windows.rs does."""

# Tokens of the text in a window, and how far the next one begins. Short windows beside these, (62, 31), were tried: more
# work, and no more found on the validation splits.
SIZES = {"whole": (254, 190)}


def windows(ids, size, step):
    if len(ids) <= size:
        return [ids]
    last = len(ids) - size
    return [ids[at : at + size] for at in [*range(0, last, step), last]]
