"""Prompts for models that were tuned for conversations."""

from collections.abc import Iterator, Mapping, Sequence

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.lm.generation.prompts import tokenizer_of
from jaxsae.lm.lm import Lm, check_lm

START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"

# What others call a role → what Gemma calls it.
_ROLES = {"user": "user", "assistant": "model", "model": "model"}


Turn = Mapping[str, str]


def chat_prompt(lm: Lm, turns: str | Turn | Sequence[Turn]) -> str:
  """Returns a conversation as text, in the form that Gemma 2 and 3 were taught.

  It is what Hugging Face's chat templates of these models make, so
  `generate(lm, chat_prompt(lm, "Why is the sky blue?"))` answers. Special
  tokens within a turn are taken as such.

  Args:
    lm: the language model, tuned for conversations.
    turns: what the user says, or a list of turns: `{"role": "user", "content":
      …}`, then `"assistant"`, and so on; the first may be `"system"` for Gemma
      3. After a last turn of the user the model's begins.

  Raises:
    UserError: there are no tokens for turns, or the roles do not alternate.
  """
  check_lm(lm)
  _check_tokens(lm)
  if isinstance(turns, str):
    turns = {"role": "user", "content": turns}
  turns = turns if isinstance(turns, Sequence) else [turns]
  said = [_role_and_text(i, turn) for i, turn in enumerate(turns)]
  system = said.pop(0)[1] if said and said[0][0] == "system" else None
  _check_roles(lm, [role for role, _ in said], system)
  return "".join(_parts(said, system))


def _parts(said: list[tuple[str, str]], system: str | None) -> Iterator[str]:
  yield "<bos>"
  begin = "" if system is None else f"{system}\n\n"
  for role, text in said:
    yield f"{START_OF_TURN}{_ROLES[role]}\n{begin}{text.strip()}{END_OF_TURN}\n"
    begin = ""
  if said[-1][0] == "user":
    yield f"{START_OF_TURN}model\n"


def _check_tokens(lm: Lm) -> None:
  tokenizer = tokenizer_of(lm)
  for token in (START_OF_TURN, END_OF_TURN):
    if tokenizer.id_of(token) is None:
      raise UserError(
        f"{lm.name or 'The language model'} was not tuned for conversations: it"
        f" has no token {token}; give generate() plain text."
      )


def _role_and_text(i: int, turn) -> tuple[str, str]:
  match turn:
    case {"role": str(role), "content": str(text)}:
      return role, text
  raise UserError(
    f"Turn {i} is {brief(turn)}; give it as"
    ' {"role": "user" or "assistant", "content": text}.'
  )


def _check_roles(lm: Lm, roles: list[str], system: str | None) -> None:
  """Raises UserError unless user and model take turns, the user first."""
  if system is not None and not lm.config.qk_norm:  # which Gemma 3 has
    raise UserError(
      "Gemma 2 was not taught the role 'system'; put that text before the"
      " user's first."
    )
  for i, role in enumerate(roles or ["nobody"]):
    wanted = "assistant" if i % 2 else "user"
    if _ROLES.get(role) != _ROLES[wanted]:
      raise UserError(
        f"Turn {i + (system is not None)} is of {role!r}, but {wanted!r} is"
        " next; let 'user' and 'assistant' take turns, the user first."
      )
