"""Prints a Markdown table line by line, as its figures become known."""


def head(*names: str) -> None:
  row(*names)
  print("|---" * len(names) + "|", flush=True)


def row(*cells) -> None:
  print(f"| {' | '.join(map(str, cells))} |", flush=True)
