"""A permitted filter that takes 2 ms of CPU for each event: it compiles a pattern in each iteration."""

TURNS = ", ".join(["1"] * 100)
SLOW = f"[{TURNS}].exists(x, 'abcd'.matches('(a|b)[^c]{{9}}%d$')) || data.number %% 3 == 0"  # matches every third event
