"""Conversations are written as Hugging Face's chat templates write them."""

import pytest

from jaxsae.errors import UserError
from jaxsae.lm import chat_prompt
from tests.libraries import need

# Of google/gemma-2-2b-it and google/gemma-3-1b-it, their checks apart.
GEMMA2 = (
  "{{ bos_token }}{% for message in messages %}"
  "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
  "{% else %}{% set role = message['role'] %}{% endif %}"
  "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim"
  " + '<end_of_turn>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)
GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {{- message['content'] | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""  # noqa: E501

USER = {"role": "user", "content": " Why is\n the sky blue? \n"}
ANSWER = {"role": "assistant", "content": "Light\n"}
SYSTEM = {"role": "system", "content": "Be brief. "}


class Tuned:
  """A tokenizer with the tokens of turns."""

  def id_of(self, text):
    return {"<start_of_turn>": 105, "<end_of_turn>": 106}.get(text)


@pytest.fixture(scope="module")
def second(tiny):
  return tiny("full").replace(tokenizer=Tuned())


@pytest.fixture(scope="module")
def third(tiny):
  return tiny("normed").replace(tokenizer=Tuned())


def rendered(template, turns):
  jinja2 = need("jinja2")
  made = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
  return made.from_string(template).render(
    messages=turns,
    bos_token="<bos>",
    add_generation_prompt=turns[-1]["role"] == "user",
  )


@pytest.mark.parametrize(
  "turns", [[USER], [USER, ANSWER], [USER, ANSWER, USER]], ids=len
)
def test_turns_are_written_as_by_both_templates(second, third, turns):
  text = chat_prompt(second, turns)
  assert text == rendered(GEMMA2, turns) == rendered(GEMMA3, turns)
  assert text == chat_prompt(third, turns)
  model = [t | {"role": t["role"].replace("assistant", "model")} for t in turns]
  assert text == chat_prompt(second, model)


def test_one_text_is_what_the_user_says(second):
  assert chat_prompt(second, "hi") == (
    "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"
  )
  assert chat_prompt(second, USER["content"]) == chat_prompt(second, [USER])
  assert chat_prompt(second, USER) == chat_prompt(second, [USER])


def test_gemma_3_takes_a_system_prompt(second, third):
  turns = [SYSTEM, USER, ANSWER, USER]
  assert chat_prompt(third, turns) == rendered(GEMMA3, turns)
  with pytest.raises(UserError, match=r"'system'.*before the user's first"):
    chat_prompt(second, turns)


@pytest.mark.parametrize(
  "turns, said",
  [
    ([], "'user' is next"),
    ([SYSTEM], "'user' is next"),
    ([ANSWER], "Turn 0 .*'assistant'.*'user' is next"),
    ([USER, USER], "Turn 1 .*'assistant' is next"),
    ([SYSTEM, USER, USER], "Turn 2 .*'assistant' is next"),
    ([USER, SYSTEM], "Turn 1 .*'system'"),
    ([USER, {"role": "tool", "content": ""}], "Turn 1 .*'tool'"),
    ([USER, "hi"], "Turn 1 is 'hi'"),
    ([{"role": "user"}], "Turn 0 is .*content"),
    ([{"role": "user", "content": ["hi"]}], "Turn 0 is .*content"),
    (5, "Turn 0 is 5"),
    (None, "Turn 0 is None"),
  ],
)
def test_mistakes_are_one_sentence(third, turns, said):
  with pytest.raises(UserError, match=said) as error:
    chat_prompt(third, turns)
  assert "\n" not in str(error.value)


def test_a_model_without_turns_says_so(tiny, tokenizer):
  base = tiny("full", vocab_size=400).replace(tokenizer=tokenizer, name="mine")
  with pytest.raises(UserError, match=r"mine .*<start_of_turn>.*plain text"):
    chat_prompt(base, "hi")
  with pytest.raises(UserError, match="no tokenizer"):
    chat_prompt(base.replace(tokenizer=None), "hi")
