"""A Markdown table, printed line by line as its figures come in."""


def head(*names: str) -> None:
  row(*names)
  print("|---" * len(names) + "|", flush=True)


def row(*cells) -> None:
  print(f"| {' | '.join(map(str, cells))} |", flush=True)
