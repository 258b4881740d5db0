"""Questions that are asked again and again."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from rasweb.rows import standing

pytestmark = pytest.mark.django_db


def test_a_standing_question_is_answered_by_what_is_there_now() -> None:
    written = []

    @standing
    def left() -> QuerySet[User]:
        written.append(1)
        return User.objects.filter(is_active=False)

    assert (left.pks(), list(left())) == ([], [])
    ada = User.objects.create(username="ada", is_active=False)
    User.objects.create(username="bob")
    assert (left.pks(), list(left())) == ([ada.pk], [ada])
    User.objects.update(is_active=True)
    asked = len(written)
    with CaptureQueriesContext(connection) as queries:
        assert list(left()) == []
    assert (len(queries), len(written)) == (1, asked)
