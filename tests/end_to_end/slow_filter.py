"""A filter that is permitted, and takes 2 ms of the processor on each event: a pattern is compiled in each turn."""

TURNS = ", ".join(["1"] * 100)
SLOW = f"[{TURNS}].exists(x, 'abcd'.matches('(a|b)[^c]{{9}}%d$')) || data.number %% 3 == 0"  # wants every third event
