"""Prices come from the shipped table or from a user's."""

import json

import pytest

from jaxsae.errors import UserError
from jaxsae.plan import prices
from jaxsae.plan.topology import KINDS


def test_every_shipped_price_has_a_source_a_date_and_a_currency():
  shipped = prices.read()
  assert set(shipped) <= set(KINDS)
  for price in shipped.values():
    assert "github.com" in price.source and price.currency == "USD"
    assert price.date == "2026-11-21" and 0 < price.spot < price.on_demand


def test_an_unknown_price_is_none():
  assert "tpu7x" not in prices.read()


@pytest.fixture
def edited(tmp_path):
  """Writes a copy of the shipped table with its first price changed."""

  def edit(**changes):
    entries = json.loads(prices.SHIPPED.read_text())
    entries[0] |= changes
    entries[0] = {k: v for k, v in entries[0].items() if v != "gone"}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(entries))
    return str(path)

  return edit


def test_an_edited_price_is_used(edited):
  path = edited(on_demand=9, spot=None, currency="EUR", source="my contract")
  price = prices.read(path)["v4"]
  assert (price.on_demand, price.spot, price.currency) == (9, None, "EUR")


def test_the_first_of_several_prices_is_used(tmp_path):
  entries = json.loads(prices.SHIPPED.read_text())
  other = entries[1] | {"on_demand": 99.0, "region": "europe-west4"}
  path = tmp_path / "prices.json"
  path.write_text(json.dumps([*entries, other]))
  assert prices.read(str(path))["v5e"].on_demand == 1.2


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"source": "gone"}, "source"),
    ({"source": " "}, "source"),
    ({"date": "last May"}, "date=last May"),
    ({"on_demand": -1}, "on_demand=-1"),
    ({"on_demand": "3"}, "on_demand='3'"),
    ({"on_demand": True}, "on_demand=True"),
    ({"on_demand": None}, "on_demand=None"),
    ({"spot": float("nan")}, "spot=nan"),
    ({"discount": 0.5}, "nothing else"),
  ],
)
def test_an_invalid_price_is_refused(edited, changes, says):
  with pytest.raises(UserError) as error:
    prices.read(edited(**changes))
  assert says in str(error.value) and "price 1" in str(error.value)


@pytest.mark.parametrize("text", ["{", "{}", None])
def test_a_file_that_is_not_a_table_is_refused(tmp_path, text):
  path = tmp_path / "prices.json"
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError, match=r"prices\.json"):
    prices.read(str(path))


def test_the_price_of_a_bucket_is_read_and_has_a_source(tmp_path):
  found = prices.read().storage
  assert found.gib_month == 0.02 and found.currency == "USD"
  assert "cloud.google.com" in found.source and found.date == "2026-09-20"
  entries = json.loads(prices.SHIPPED.read_text())
  path = tmp_path / "prices.json"
  path.write_text(json.dumps([e for e in entries if "chip" in e]))
  assert prices.read(str(path)).storage is None
  entries[-1]["gib_month"] = 0
  path.write_text(json.dumps(entries))
  with pytest.raises(UserError, match=r"gib_month=0 .* per GiB and month"):
    prices.read(str(path))
