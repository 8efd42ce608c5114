"""What all pages share: their templates, and text and numbers on them."""

import base64
import hashlib
import math
import pathlib
import unicodedata

import jinja2

# Kinds of characters that print nothing, or turn the text after them around.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def template(file: pathlib.Path) -> jinja2.Template:
  """Returns a template, which escapes all text and has our filters."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(file.parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["number"] = number
  environment.filters["seen"] = seen
  return environment.get_template(file.name)


def number(value: float | None, pattern: str) -> str:
  """Returns a number with a true minus; a dash where there is none."""
  if value is None or not math.isfinite(value):
    return "\u2013"
  return format(value, pattern).replace("-", "\u2212")


def seen(text: str) -> str:
  """Names the characters of a text that would not be seen, but for spaces."""
  return "".join(
    f"U+{ord(x):04X}"
    if unicodedata.category(x) in _UNSEEN and x not in "\n\t"
    else x
    for x in text
  )


def content_hash(text: str) -> str:
  """Returns the hash that a content security policy allows a text by."""
  digest = hashlib.sha256(text.encode()).digest()
  return f"sha256-{base64.b64encode(digest).decode()}"
