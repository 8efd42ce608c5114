"""A library that should be there is not skipped."""

import sys

import pytest

from tests.libraries import need


def test_a_library_that_is_there_is_returned():
  assert need("json.decoder") is sys.modules["json.decoder"]


def test_where_the_lock_has_it_a_missing_one_fails(monkeypatch):
  monkeypatch.setattr(sys, "version_info", (3, 11, 7))
  with pytest.raises(ModuleNotFoundError, match="no_such_library"):
    need("no_such_library")


def test_where_the_lock_leaves_it_out_a_missing_one_is_skipped(monkeypatch):
  monkeypatch.setattr(sys, "version_info", (3, 13, 0))
  with pytest.raises(pytest.skip.Exception, match="no_such_library"):
    need("no_such_library")
